"""TCP connections from admission to their end."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import ceil
from typing import Protocol

from marchproxy.dataplane.proxy import sockets
from marchproxy.dataplane.proxy.ledger import Conversation, Ledger
from marchproxy.dataplane.proxy.reach import Unreachable, reach
from marchproxy.dataplane.proxy.relay import Relay
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.address import IPAddress
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer, Query

log = logging.getLogger(__name__)

ACCEPTS_AT_ONCE = 64
"""Connections accepted before the loop turns to others."""
PAUSE = 0.1
"""Seconds without accepting when the process or the kernel is out of descriptors or memory."""
YIELD = 0.05
"""Seconds for which a process that has no room leaves connections to others at the same socket."""


@dataclass(frozen=True, slots=True)
class TcpLimits:
    """Times in seconds."""

    connections: int
    connect: float = 5.0
    """For one backend to answer."""
    admission: float = 15.0
    """For all of them together: nobody waits longer for a refusal."""
    idle: float = 3600.0
    """Without a byte in either direction."""


class TcpConnection:
    """One client's connection: first a search for a backend, then a relay."""

    def __init__(self, client: socket.socket, conversation: Conversation) -> None:
        self.conversation = conversation
        self.relay: Relay | None = None
        self.search: asyncio.Task[None] | None = None
        self.client = client


class TcpCarrier:
    """Admits the connections of all TCP listeners, and holds those that live."""

    def __init__(self, ledger: Ledger, limits: TcpLimits) -> None:
        self.limits = limits
        self.live: set[TcpConnection] = set()
        self.empty = asyncio.Event()
        """Set while nothing lives."""
        self.empty.set()
        self._ledger = ledger
        self._tasks = Tasks()

    def admit(self, client: socket.socket, peer: IPAddress, peer_port: int) -> None:
        """Decide about a connection just accepted. Who the peer is decides, before a byte is read."""
        local = client.getsockname()
        query, answer = self._ledger.decide(Transport.TCP, peer, sockets.address_of(local[0]), local[1])
        if not answer.verdict.lets_through or answer.pool is None:
            denied = answer.verdict is Verdict.DENY
            self._refuse(client, query, peer_port, answer, answer.reason if denied else Reason.NO_MAPPING)
        elif len(self.live) >= self.limits.connections:
            self._refuse(client, query, peer_port, answer, Reason.FLOW_TABLE_FULL)
        elif not self._ledger.limits.admit(peer, time.monotonic()):
            self._refuse(client, query, peer_port, answer, Reason.RATE_LIMITED)
        else:
            connection = TcpConnection(client, self._ledger.begin(query, peer_port, answer))
            self.live.add(connection)
            self.empty.clear()
            search, flow = self._open(connection), connection.conversation.number
            name = f"connect for {peer}:{peer_port}"
            connection.search = self._tasks.start(search, name=name, flow=flow)

    def recheck(self) -> None:
        """End what the plan in force no longer allows."""
        for connection in tuple(self.live):
            if not self._ledger.still_allowed(connection.conversation):
                self.end(connection, self._ledger.reason_to_end(connection.conversation))

    def expire(self) -> None:
        """End what has been silent for too long."""
        for connection in tuple(self.live):
            if connection.conversation.idle() > self.limits.idle:
                self.end(connection, Reason.IDLE)

    def cut(self, ids: AbstractSet[int]) -> set[int]:
        """End the connections with these numbers; those that there were."""
        found = {each for each in self.live if each.conversation.number in ids}
        for connection in found:
            self.end(connection, Reason.CUT)
        return {connection.conversation.number for connection in found}

    def end(self, connection: TcpConnection, reason: Reason) -> None:
        """End one connection with RST."""
        if connection.relay:
            connection.relay.end(reason)
        elif connection.search:
            self._forget(connection)
            connection.search.cancel()
            self._refuse_conversation(connection, reason)

    async def close(self) -> None:
        """End everything."""
        for connection in tuple(self.live):
            self.end(connection, Reason.RESET)
        await self._tasks.stop()

    async def _open(self, connection: TcpConnection) -> None:
        conversation = connection.conversation
        try:
            backend, upstream = await reach(
                self._ledger, conversation, each=self.limits.connect, within=self.limits.admission
            )
        except Unreachable as error:
            self._forget(connection)
            self._refuse_conversation(connection, error.reason)
            return
        connection.relay = Relay(connection.client, upstream, conversation, self._ended(connection))
        self._ledger.opened(conversation, backend)
        if self._ledger.still_allowed(conversation):
            connection.relay.start()
        else:
            # A new plan came while the backend was being looked for.
            connection.relay.end(self._ledger.reason_to_end(conversation))

    def _ended(self, connection: TcpConnection) -> Callable[[Reason], None]:
        def note(reason: Reason) -> None:
            self._forget(connection)
            self._ledger.ended(connection.conversation, reason)

        return note

    def _refuse_conversation(self, connection: TcpConnection, reason: Reason) -> None:
        asked = connection.conversation
        self._refuse(connection.client, asked.query, asked.source_port, asked.answer, reason)

    def _refuse(self, client: socket.socket, query: Query, port: int, answer: Answer, reason: Reason) -> None:
        sockets.reset(client)
        self._ledger.refuse(query, port, answer, reason)

    def _forget(self, connection: TcpConnection) -> None:
        self.live.discard(connection)
        if not self.live:
            self.empty.set()


class Carrier(Protocol):
    """Takes what a listener accepts."""

    def admit(self, client: socket.socket, peer: IPAddress, peer_port: int) -> None:
        """Take a connection that was just accepted, non-blocking."""


class TcpListener:
    """One listening socket, accepting for a carrier."""

    def __init__(
        self,
        sock: socket.socket,
        carrier: Carrier,
        sharers: int = 1,
        room: Callable[[], int] = lambda: sockets.BACKLOG,
    ) -> None:
        """`sharers`: processes that accept at this socket, each of which leaves the others their part, and
        all for a moment where it has `room` for no more. Whoever waits still then is for `carrier` to refuse:
        nobody has any.

        Else whoever wakes first takes all of a burst of connections, and serves them for as long as they
        last while the others have nothing to do. A socket of its own for each process (SO_REUSEPORT) would
        leave it to chance, and to a process that died or hangs what came for it.
        """
        self.socket = sock
        self._sharers = sharers
        self._room = room
        self.overloaded = ""
        """Why accepting pauses right now; empty while it does not."""
        self.carrier = carrier
        """Who takes what is accepted from now on."""
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to accept."""
        self._pause = None
        self._loop.add_reader(self.socket, self._acceptable)

    def close(self, *, kept: bool = False) -> None:
        """Stop, after a last round of accepting: who has connected already is not reset.

        `kept`: somebody else holds the socket, and who has connected waits in it.
        """
        if self._pause is None and not kept:
            self._accept(sockets.BACKLOG)
        if self._pause:
            self._pause.cancel()
        self._loop.remove_reader(self.socket)
        self.socket.close()

    def _acceptable(self) -> None:
        if self._sharers == 1:
            self._accept(ACCEPTS_AT_ONCE)
            return
        room = self._room()
        if room > 0:
            part = ceil(sockets.waiting(self.socket) / self._sharers)
            self._accept(min(part, room, ACCEPTS_AT_ONCE))
        else:
            self._loop.remove_reader(self.socket)
            self._pause = self._loop.call_later(YIELD, self._accept_remaining)

    def _accept_remaining(self) -> None:
        self.start()
        self._accept(min(sockets.waiting(self.socket), ACCEPTS_AT_ONCE))

    def _accept(self, most: int) -> None:
        for _ in range(most):
            try:
                client, peer = self.socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in sockets.PASSING:
                    continue
                self._rest(error)
                return
            self.overloaded = ""
            client.setblocking(False)
            self.carrier.admit(client, sockets.address_of(peer[0]), peer[1])

    def _rest(self, error: OSError) -> None:
        if not self.overloaded:
            log.warning("accepting pauses: %s", error.strerror)
        self.overloaded = str(error.strerror)
        self._loop.remove_reader(self.socket)
        self._pause = self._loop.call_later(PAUSE, self.start)
