"""What a client says in TLS at first, before anything is taken from it."""

import asyncio
import socket

from marchproxy.dataplane.proxy.protocol.admission import DEADLINE
from marchproxy.dataplane.proxy.protocol.clienthello import MAX_HELLO, ClientHelloReader, Hello

_FIRST, _LAST = 0.01, 0.5
"""Seconds until a hello that is not complete is looked at again; each time twice as long."""


async def peeked_hello(client: socket.socket) -> Hello | None:
    """None: no hello that is complete within `DEADLINE`, of which TLS then says what is wrong.

    Its first bytes have come. Raises `OSError`.
    """
    loop = asyncio.get_running_loop()
    until, pause, size = loop.time() + DEADLINE, _FIRST, 0
    while size < MAX_HELLO and loop.time() < until:
        data = client.recv(MAX_HELLO, socket.MSG_PEEK)
        if len(data) > size:
            size = len(data)
            found = ClientHelloReader().feed(data)
            if found is not None:
                return found if isinstance(found, Hello) else None
        # What was looked at stays there, so that nobody is told when more comes.
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LAST)
    return None


async def hello_name(client: socket.socket) -> str:
    """The host that it names, in lower case; empty: none, or no hello. Raises as `peeked_hello`."""
    hello = await peeked_hello(client)
    return hello.server_name or "" if hello is not None else ""
