"""A client's socket while it is talked to: reads and writes with a deadline, and an end that is heard.

Nothing is read ahead: what a client sends before it is let in stays in the kernel's buffer, where the relay
finds it.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.dataplane.proxy.protocol.exchange import Bound
from marchproxy.dataplane.proxy.readiness import readiness
from marchproxy.dataplane.proxy.relay import Relay
from marchproxy.dataplane.proxy.sockets import reset
from marchproxy.model.reason import Reason

READ_SIZE = 8192
"""Bytes of one read: little more than a request has."""
LINGER = 1.0
"""Seconds for a client to take what it was told before the connection is closed."""
_DISCARDED = 64 * 1024
"""Bytes that are thrown away meanwhile."""


class Wire:
    """One connected, non-blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._loop = asyncio.get_running_loop()
        self._readiness = readiness()

    async def receive(self, until: float | None) -> bytes | None:
        """The next bytes; empty: FIN. None: the loop's clock has come to `until`. Raises `OSError`."""
        return await self._take(until)

    async def _take(self, until: float | None) -> bytes | None:
        """The same of what is on the wire."""
        while True:
            try:
                return self.socket.recv(READ_SIZE)
            except (BlockingIOError, InterruptedError):
                if not await self._readiness.readable(self.socket, until):
                    return None

    async def peek(self, until: float) -> bytes:
        """What the client has sent, without taking it; empty: nothing until then. Raises `OSError`."""
        while True:
            try:
                return self.socket.recv(READ_SIZE, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                if not await self._readiness.readable(self.socket, until):
                    return b""

    def discard(self, size: int) -> None:
        """Take so many of the bytes that were peeked at. Raises `OSError`."""
        while size:
            size -= len(self.socket.recv(size))

    async def send(self, data: bytes, within: float) -> None:
        """Send all of it. Raises `OSError`; a client that does not take it in `within` seconds is one."""
        rest = memoryview(data)
        until = None
        while rest:
            try:
                rest = rest[self.socket.send(rest) :]
            except (BlockingIOError, InterruptedError):
                until = self._loop.time() + within if until is None else until
                if not await self._readiness.writable(self.socket, until):
                    raise TimeoutError from None

    async def close(self) -> None:
        """Say FIN, and wait a moment for the client's: closing over unread bytes would reset it."""
        until = self._loop.time() + LINGER
        left = _DISCARDED
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            while left > 0 and (data := await self._take(until)):
                left -= len(data)
        self.socket.close()

    def reset(self) -> None:
        """End at once."""
        reset(self.socket)

    def relay(
        self,
        upstream: socket.socket,
        conversation: Conversation,
        on_end: Callable[[Reason], None],
        bound: Bound | None,
    ) -> Relay:
        """What carries bytes from here on, not yet started; the socket is its own. See `Relay`."""
        return Relay(self.socket, upstream, conversation, on_end, bound)
