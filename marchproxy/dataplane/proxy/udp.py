"""UDP sessions: datagrams of one client to one listener, relayed to one backend and back.

A session is the pair of client and local address. It has a connected socket of its own towards the backend,
so that answers and ICMP errors find it. A full socket buffer loses datagrams here as a full queue does in any
router.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

from marchproxy.dataplane.proxy import pktinfo, sockets
from marchproxy.dataplane.proxy.ledger import Conversation, Ledger
from marchproxy.dataplane.proxy.quichomes import QuicHomes, is_long
from marchproxy.model.address import IPAddress
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.plan import WILDCARDS, Backend, Listener, Rule

DATAGRAMS_AT_ONCE = 64
"""Datagrams taken from one socket before the loop turns to others."""

_scratch = memoryview(bytearray(65536))
_WOULD_BLOCK = frozenset({errno.EAGAIN, errno.EINTR, errno.ENOBUFS})

type SocketAddress = tuple[str, int] | tuple[str, int, int, int]
type SessionKey = tuple[SocketAddress, IPAddress, int]
"""Client, local address, local port."""


@dataclass(frozen=True, slots=True)
class UdpLimits:
    """Sessions of all listeners together, and seconds of silence that end one."""

    sessions: int
    idle: float = 60.0


class UdpSession:
    """One client at one of our addresses, and the backend that answers it."""

    def __init__(
        self, carrier: "UdpCarrier", listener: "UdpListener", key: SessionKey, conversation: Conversation
    ) -> None:
        self.carrier = carrier
        self.listener = listener
        """The one that answers: another takes over when a plan swaps a wildcard and a single address."""
        self.key = key
        self.conversation = conversation
        self._loop = asyncio.get_running_loop()
        self.failure = Reason.NO_BACKEND
        """Why the last backend tried could not be used."""
        self.is_quic = carrier.reads_quic(conversation)
        """Its connection IDs are learnt from what the backend says."""
        self._backends = carrier.ledger.candidates(conversation)
        self._upstream: socket.socket | None = None

    def connect(self, first: Backend | None = None) -> Backend | None:
        """Turn to the next backend, or to `first` before those; None: there is none left."""
        self.disconnect()
        if first is not None:
            self._backends = chain((first,), self._backends)
        for backend in self._backends:
            if self.carrier.ledger.is_blocked(backend):
                self.failure = Reason.BLOCKED_DESTINATION
                continue
            try:
                self._upstream = _connected(backend)
            except OSError as error:
                self.failure = sockets.refusal_reason(error)
                continue
            self._loop.add_reader(self._upstream, self._readable)
            return backend
        return None

    def disconnect(self) -> None:
        """Let go of the backend."""
        if self._upstream:
            self._loop.remove_reader(self._upstream)
            self._upstream.close()
            self._upstream = None

    def send(self, data: memoryview) -> None:
        """Pass a datagram of the client on."""
        if self._upstream is None:
            return
        try:
            self._upstream.send(data)
        except OSError as error:
            self._failed(error, len(data))
        else:
            self.conversation.carry(self.conversation.sent, len(data))

    def _readable(self) -> None:
        for _ in range(DATAGRAMS_AT_ONCE):
            if self._upstream is None:
                return
            try:
                size = self._upstream.recv_into(_scratch)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._failed(error, 0)
                return
            data = _scratch[:size]
            if self.is_quic and self.conversation.backend:
                self.carrier.homes.learn(self.conversation.answer.mapping, self.conversation.backend, data)
            if self.carrier.answer(self, data):
                self.conversation.carry(self.conversation.received, size)

    def _failed(self, error: OSError, size: int) -> None:
        """ECONNREFUSED tells of an ICMP error about an earlier datagram: the backend's port is closed."""
        if error.errno in _WOULD_BLOCK:
            return
        self.failure = sockets.refusal_reason(error)
        self.carrier.ledger.drop(self.failure, size)
        if self.failure is not Reason.TOO_BIG:
            self.carrier.turn(self)


class UdpCarrier:
    """Admits the datagrams of all UDP listeners, and holds the sessions that live."""

    def __init__(self, ledger: Ledger, limits: UdpLimits) -> None:
        self.limits = limits
        self.ledger = ledger
        self.live: dict[SessionKey, UdpSession] = {}
        self.homes = QuicHomes()
        self.draining = False
        """No new sessions; those that live go on."""

    def receive(self, listener: "UdpListener", key: SessionKey, data: memoryview) -> None:
        """Take one datagram from a client."""
        session = self.live.get(key)
        if session is None:
            session = self._admit(listener, key, data)
        elif session.is_quic and is_long(data):
            self.homes.find(session.conversation.answer.mapping, data)
        if session:
            session.listener = listener
            session.send(data)

    def answer(self, session: UdpSession, data: memoryview) -> bool:
        """Send a backend's datagram to the client; False: it could not be sent."""
        client, local, _ = session.key
        try:
            session.listener.send(data, local, client)
        except OSError as error:
            if error.errno not in _WOULD_BLOCK:
                self.ledger.drop(sockets.refusal_reason(error), len(data))
            return False
        return True

    def hand_over(self, old: "UdpListener", new: "UdpListener | None") -> None:
        """A listener is about to close: its sessions go to the one that receives in its place, or end."""
        for session in tuple(self.live.values()):
            if session.listener is old and new:
                session.listener = new
            elif session.listener is old:
                self.end(session, Reason.CLOSED)

    def turn(self, session: UdpSession) -> None:
        """Give a session its next backend, or end it."""
        backend = session.connect()
        if backend is None:
            self.end(session, session.failure)
        else:
            self.ledger.moved(session.conversation, backend)

    def end(self, session: UdpSession, reason: Reason) -> None:
        """End one session."""
        if self.live.pop(session.key, None):
            session.disconnect()
            self.ledger.ended(session.conversation, reason)

    def cut(self, ids: AbstractSet[int]) -> set[int]:
        """End the sessions with these numbers; those that there were."""
        found = {each.conversation.number for each in self.live.values()} & ids
        self._end_where(lambda session: session.conversation.number in found, Reason.CUT)
        return found

    def recheck(self) -> None:
        """End what the plan in force no longer allows."""
        for session in tuple(self.live.values()):
            if not self.ledger.still_allowed(session.conversation):
                self.end(session, self.ledger.reason_to_end(session.conversation))

    def expire(self) -> None:
        """End what has been silent for too long."""
        self._end_where(lambda session: session.conversation.idle() > self.limits.idle, Reason.IDLE)

    def close(self) -> None:
        """End everything."""
        self._end_where(lambda _: True, Reason.CLOSED)

    def _end_where(self, condition: Callable[[UdpSession], bool], reason: Reason) -> None:
        for session in tuple(self.live.values()):
            if condition(session):
                self.end(session, reason)

    def reads_quic(self, conversation: Conversation) -> bool:
        """Whether it is QUIC, by its mapping."""
        rule = conversation.answer.rule
        return isinstance(rule, Rule) and rule.quic

    def _home(self, session: UdpSession, data: memoryview) -> Backend | None:
        """The backend that knows a client that comes from elsewhere, if policy still has it."""
        answer = session.conversation.answer
        found = self.homes.find(answer.mapping, data) if session.is_quic else None
        if found is None or answer.pool is None:
            return None
        place = found.address, found.port
        return next((each for each in answer.pool.backends if (each.address, each.port) == place), None)

    def _admit(self, listener: "UdpListener", key: SessionKey, data: memoryview) -> UdpSession | None:
        if self.draining:
            return None
        size = len(data)
        client, local, local_port = key
        source, port = sockets.address_of(client[0]), client[1]
        query, answer = self.ledger.decide(Transport.UDP, source, local, local_port)
        if not answer.verdict.lets_through:
            denied = answer.verdict is Verdict.DENY
            self.ledger.refuse(query, port, answer, answer.reason if denied else Reason.NO_MAPPING, size)
            return None
        if len(self.live) >= self.limits.sessions:
            self.ledger.refuse(query, port, answer, Reason.FLOW_TABLE_FULL, size)
            return None
        if not self.ledger.limits.admit(source, time.monotonic()):
            self.ledger.refuse(query, port, answer, Reason.RATE_LIMITED, size)
            return None
        session = UdpSession(self, listener, key, self.ledger.begin(query, port, answer))
        backend = session.connect(self._home(session, data))
        if backend is None:
            self.ledger.refuse(query, port, answer, session.failure, size)
            return None
        self.live[key] = session
        self.ledger.opened(session.conversation, backend)
        return session


class UdpListener:
    """One bound socket, receiving for a carrier."""

    def __init__(self, sock: socket.socket, listener: Listener, carrier: UdpCarrier) -> None:
        self.socket = sock
        self._address = listener.address
        self._port = listener.port
        self._carrier = carrier
        self._wildcard = listener.address in WILDCARDS.values()
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begin to receive."""
        self._loop.add_reader(self.socket, self._readable)

    def close(self) -> None:
        """Stop receiving."""
        self._loop.remove_reader(self.socket)
        self.socket.close()

    def send(self, data: memoryview, local: IPAddress, client: SocketAddress) -> None:
        """Send a datagram to `client` from the address it had asked. Raises `OSError`."""
        self.socket.sendmsg([data], pktinfo.source(local) if self._wildcard else (), 0, client)

    def _readable(self) -> None:
        for _ in range(DATAGRAMS_AT_ONCE):
            try:
                size, ancillary, _, client = self.socket.recvmsg_into([_scratch], pktinfo.ANCILLARY)
            except OSError:
                # Nothing left, or an ICMP error about an answer, which the kernel has told only now.
                return
            with suppress(LookupError):
                local = pktinfo.destination(ancillary) if self._wildcard else self._address
                self._carrier.receive(self, (client, local, self._port), _scratch[:size])


def _connected(backend: Backend) -> socket.socket:
    upstream = sockets.connected_socket(backend.address, Transport.UDP)
    try:
        upstream.connect(sockets.sockaddr(backend.address, backend.port))
    except OSError:
        upstream.close()
        raise
    return upstream
