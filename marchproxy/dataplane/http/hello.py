"""The host that a client names in TLS, before anything is taken from it."""

import asyncio
import socket

from marchproxy.dataplane.proxy.protocol.admission import DEADLINE
from marchproxy.dataplane.proxy.protocol.clienthello import MAX_HELLO, ClientHelloReader, Hello

_FIRST, _LAST = 0.01, 0.5
"""Seconds until a hello that is not complete is looked at again; each time twice as long."""


async def hello_name(client: socket.socket) -> str:
    """In lower case; empty: none, or no hello that is complete within `DEADLINE`, of which TLS then says what
    is wrong. Its first bytes have come. Raises `OSError`.
    """
    loop = asyncio.get_running_loop()
    until, pause, size = loop.time() + DEADLINE, _FIRST, 0
    while size < MAX_HELLO and loop.time() < until:
        data = client.recv(MAX_HELLO, socket.MSG_PEEK)
        if len(data) > size:
            size = len(data)
            found = ClientHelloReader().feed(data)
            if found is not None:
                return (found.server_name or "") if isinstance(found, Hello) else ""
        # What was looked at stays there, so that nobody is told when more comes.
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LAST)
    return ""
