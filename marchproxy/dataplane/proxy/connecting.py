"""Upstream TCP connections. How one is made depends on whether the kernel may take it over later."""

import errno
import os
import socket
from collections.abc import Awaitable, Callable

from marchproxy.dataplane.proxy import sockets
from marchproxy.dataplane.proxy.readiness import readiness
from marchproxy.model.address import IPAddress
from marchproxy.model.protocol import Transport

_TCP_CLOSE = 7
"""Of the states that TCP_INFO begins with."""

type Connect = Callable[[IPAddress, int, float | None], Awaitable[socket.socket]]
"""A connection to that address and port, non-blocking. Raises `OSError`: `TimeoutError` where it does not
stand when the loop's clock comes to the third. None: whoever waits sets a deadline.
"""


async def connect(address: IPAddress, port: int, until: float | None = None) -> socket.socket:
    """One from any port that the kernel gives. See `Connect`."""
    upstream = sockets.connected_socket(address, Transport.TCP)
    try:
        upstream.connect(sockets.sockaddr(address, port))
    except BlockingIOError:
        pass
    except OSError:
        upstream.close()
        raise
    return await connected(upstream, until)


async def connected(upstream: socket.socket, until: float | None = None) -> socket.socket:
    """A socket that has begun to connect, once it stands. Raises as `Connect` does, and closes it.

    It is asked before it is waited for: over a virtual link the handshake is over when connect() returns.
    """
    try:
        while not _stands(upstream):
            if _is_over(upstream):
                # Why may have become known just now.
                _stands(upstream)
                raise OSError(errno.ECONNABORTED, "it ended before it stood")
            await _until_writable(upstream, until)
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        upstream.close()
        raise
    return upstream


def _stands(upstream: socket.socket) -> bool:
    """Whether the handshake is over. Raises the `OSError` that it ended with.

    That there is no error is not enough: it is told once, event loops wake for less (uvloop did, while a host
    did not answer), and loop.sock_connect asks for nothing else.
    """
    try:
        upstream.getpeername()
    except OSError:
        error = upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            # OSError itself makes ECONNREFUSED a ConnectionRefusedError, and ETIMEDOUT a TimeoutError.
            raise OSError(error, os.strerror(error)) from None
        return False
    return True


def _is_over(upstream: socket.socket) -> bool:
    return upstream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE


async def _until_writable(sock: socket.socket, until: float | None) -> None:
    if not await readiness().writable(sock, until):
        raise TimeoutError
