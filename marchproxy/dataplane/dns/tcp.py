"""Questions and answers over TCP (RFC 7766)."""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

from marchproxy.dataplane.proxy import sockets
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.address import IPAddress

log = logging.getLogger(__name__)

CONNECTIONS = 256
"""Of one listener at the same time."""
OF_ONE_CLIENT = 16
IDLE = 10.0
"""Seconds for a whole question to arrive, and for an answer to be taken (RFC 7766 section 6.2.3)."""
LARGEST_ANSWER = 65535
_SHORTEST_QUESTION = 12

type Respond = Callable[[bytes, IPAddress, int], Awaitable[bytes | None]]


class TcpServer:
    """Answers connections of one listening socket, one question after the other on each."""

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self._tasks = Tasks()
        self._server: asyncio.Server | None = None
        self._clients: Counter[IPAddress] = Counter()

    async def start(self, listening: socket.socket) -> None:
        """Accept on `listening`, which is its own from now on."""
        self._server = await asyncio.start_server(self._accepted, sock=listening)

    async def close(self) -> None:
        """Stop accepting, and end every connection."""
        if self._server:
            self._server.close()
        await self._tasks.stop()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        client = sockets.address_of(peer[0]) if peer else None
        if client is None or len(self._tasks) >= CONNECTIONS or self._clients[client] >= OF_ONE_CLIENT:
            writer.transport.abort()
            return
        self._clients[client] += 1
        self._tasks.start(self._serve(reader, writer, client), name=f"dns client {client}")

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: IPAddress
    ) -> None:
        try:
            while await self._exchange(reader, writer, client):
                pass
        except (OSError, EOFError, TimeoutError) as error:
            log.debug("%s went away: %s", client, error)
        finally:
            writer.transport.abort()
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: IPAddress
    ) -> bool:
        """One question and its answer; False when the connection is over."""
        async with asyncio.timeout(IDLE):
            length = int.from_bytes(await reader.readexactly(2))
            if length < _SHORTEST_QUESTION:
                return False
            question = await reader.readexactly(length)
        wire = await self._respond(question, client, LARGEST_ANSWER)
        if wire is None:
            return False
        writer.write(len(wire).to_bytes(2) + wire)
        async with asyncio.timeout(IDLE):
            await writer.drain()
        return True
