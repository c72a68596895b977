"""Upstream TCP connections. How one is made depends on whether the kernel may take it over later."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

from marchproxy.dataplane.proxy import sockets
from marchproxy.model.address import IPAddress
from marchproxy.model.protocol import Transport

type Connect = Callable[[IPAddress, int], Awaitable[socket.socket]]
"""A connection to that address and port, non-blocking. Raises `OSError`; whoever waits sets the deadline."""


async def connect(address: IPAddress, port: int) -> socket.socket:
    """One from any port that the kernel gives. See `Connect`."""
    upstream = sockets.connected_socket(address, Transport.TCP)
    try:
        await asyncio.get_running_loop().sock_connect(upstream, sockets.sockaddr(address, port))
    except BaseException:
        upstream.close()
        raise
    return upstream


async def connected(upstream: socket.socket) -> socket.socket:
    """A socket that has begun to connect, once it stands. Raises `OSError`, and closes it."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(upstream, wake)
    try:
        await ready
        error = upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            # OSError itself makes ECONNREFUSED a ConnectionRefusedError, and ETIMEDOUT a TimeoutError.
            raise OSError(error, os.strerror(error))
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        loop.remove_writer(upstream)
        upstream.close()
        raise
    loop.remove_writer(upstream)
    return upstream
