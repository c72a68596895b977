"""Handing a tunnel to the kernel: two connections of user space become one flow without sockets.

`Handoff.attempt` enters the flow while the sockets are still there, with data in flight both ways; what comes
in from then on goes by the kernel. `Draining` relays what had come in before, waits until the peers have
acknowledged what the sockets have sent, and closes them without a word.
"""

import errno
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from marchproxy.dataplane.kernel import joining, layouts
from marchproxy.dataplane.kernel.backlog import lift_limits
from marchproxy.dataplane.kernel.clock import KernelClock
from marchproxy.dataplane.kernel.errors import KernelError, MapFull
from marchproxy.dataplane.kernel.flowends import FlowEnds
from marchproxy.dataplane.kernel.flows import FlowTable, Report
from marchproxy.dataplane.kernel.joining import HandoffRefusal
from marchproxy.dataplane.kernel.loading import HandoffPrograms
from marchproxy.dataplane.kernel.maps import NO_EXIST, Map
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.kernel.splices import Splice, Splices
from marchproxy.dataplane.kernel.tcpsocket import (
    Option,
    TcpSocket,
    TcpSockets,
    arriving_key,
    ask_peer,
    enter_repair,
)
from marchproxy.dataplane.kernel.testrun import run
from marchproxy.dataplane.kernel.tunnels import HeldTunnel, Tunnel, TunnelTable
from marchproxy.model.reason import Reason

PIECE = 65536
"""Bytes that are relayed at once while draining."""
AFTERGLOW = 0.005
"""Seconds between the end of draining and that of the sockets: what arrives for a socket that is gone is
answered with a reset."""
_LINK = bytes(12) + bytes.fromhex("88b5")


@dataclass(frozen=True, slots=True)
class TunnelFacts:
    """What the flow of a tunnel is told, beside what the sockets know."""

    id: int
    """See `new_flow_id`."""
    mapping: int
    """By `MappingNames`."""
    revision: int
    started: int
    """CLOCK_MONOTONIC nanoseconds."""
    tunnel: Tunnel = Tunnel()  # noqa: RUF009  (frozen)


class Progress(Enum):
    """How far a handoff is."""

    DRAINING = "draining"
    HANDED_OFF = "handed-off"
    """The kernel has it; the sockets are closed."""
    ENDED = "ended"
    """The connection has ended meanwhile; the sockets are closed, and the event is there or comes."""


class Draining:
    """A tunnel on its way to the kernel. It owns both sockets, which must be in no event loop any more."""

    def __init__(self, handoff: "Handoff", place: int, splice: Splice, ends: tuple["_End", "_End"]) -> None:
        self._handoff = handoff
        self._place = place
        self._splice = splice
        self._client, self._upstream = ends
        self._close_at = 0.0
        """Monotonic; 0: there is still something to do."""

    @property
    def id(self) -> int:
        """Of the flow."""
        return self._splice.id

    def advance(self) -> Progress:
        """Relay what can be relayed now, and finish when nothing is left. Never blocks.

        To be called again after a millisecond or a few while it answers DRAINING.
        """
        handoff = self._handoff
        if self._close_at:
            over = time.monotonic() >= self._close_at
            return self._close(Progress.HANDED_OFF) if over else Progress.DRAINING
        if not handoff.holds(self._client.key, self.id):
            return self._close(Progress.ENDED)
        try:
            self._relay(self._client, self._upstream)
            self._relay(self._upstream, self._client)
            client, upstream = self._client.ask(handoff.sockets), self._upstream.ask(handoff.sockets)
        except OSError:
            return self._abandon()
        if client is None and upstream is None:
            # Both FINs came before the flow was there, and went on by the sockets to the last.
            handoff.table.end(self._client.key, self.id, Reason.CLOSED, handoff.report)
            return self._close(Progress.ENDED)
        if self._client.is_empty(client) and self._upstream.is_empty(upstream):
            self._client.settle(handoff, self.id, client)
            self._upstream.settle(handoff, self.id, upstream)
            self._let_go()
        return Progress.DRAINING

    def abandon(self) -> None:
        """Instead of `advance`, before that has finished: what the sockets are still needed for is reset."""
        if self._close_at:
            self._close(Progress.HANDED_OFF)
        else:
            self._abandon()

    def _relay(self, source: "_End", target: "_End") -> None:
        while not source.ended:
            if not source.pending:
                try:
                    source.pending = source.sock.recv(PIECE)
                except BlockingIOError:
                    return
                if not source.pending:
                    self._pass_on_end(source, target)
                    return
            try:
                source.pending = source.pending[target.sock.send(source.pending) :]
            except BlockingIOError:
                return

    def _pass_on_end(self, source: "_End", target: "_End") -> None:
        """A FIN that reached our socket before the flow was there."""
        source.ended = True
        state = self._handoff.sockets.ask(target.sock)
        if state is None:
            raise OSError(errno.ENOTCONN, "closed meanwhile")
        # First the flow, lest the acknowledgement of our FIN is there before it.
        self._handoff.amend(source.key, self.id, flags=layouts.FLAG_FIN)
        self._handoff.amend(
            target.key, self.id, flags=layouts.FLAG_PEER_FIN, peer_fin_ack=(state.written + 1) & 0xFFFFFFFF
        )
        target.sock.shutdown(socket.SHUT_WR)

    def _abandon(self) -> Progress:
        """One of the sockets failed: its peer is gone, and the other one has to hear of it."""
        if not self._handoff.table.end(self._client.key, self.id, Reason.RESET, self._handoff.report):
            return self._close(Progress.ENDED)
        for end in (self._client, self._upstream):
            with suppress(OSError):
                end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            end.sock.close()
        return Progress.ENDED

    def _let_go(self) -> None:
        """The programs let the sockets hear nothing more; what they had let through is still on its way."""
        held_back = self._handoff.splices.end_draining(self._place, self._splice)
        if held_back:
            self._client.probe()
            self._upstream.probe()
        for end in (self._client, self._upstream):
            # Should the process be killed now, the kernel closes them silently, too.
            with suppress(OSError):
                enter_repair(end.sock)
        self._close_at = time.monotonic() + AFTERGLOW

    def _close(self, progress: Progress) -> Progress:
        if progress is Progress.ENDED:
            self._handoff.splices.end_draining(self._place, self._splice)
        for end in (self._client, self._upstream):
            close_silently(end.sock)
        return progress


class _End:
    """One of the two sockets while it drains."""

    def __init__(self, sock: socket.socket, key: bytes, state: TcpSocket, other: TcpSocket) -> None:
        self.sock = sock
        self.key = key
        self.pending = b""
        """Read from this socket, and not yet written to the other."""
        self.ended = state.fin_received and other.fin_sent
        """Nothing is to be read any more."""
        self._bytes_in = state.bytes_in

    def ask(self, sockets: TcpSockets) -> TcpSocket | None:
        """What the socket knows; None where its connection has ended in order. OSError where it was reset."""
        state = sockets.ask(self.sock)
        code = 0 if state else self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        return state

    def is_empty(self, state: TcpSocket | None) -> bool:
        """Whether nothing is left to be done with it."""
        if state is None:
            return not self.pending
        waits_for_end = state.fin_received and not self.ended
        return not (self.pending or state.unread or state.unacknowledged or waits_for_end)

    def probe(self) -> None:
        """Have the peer say what it has received, for the other side to hear."""
        with suppress(OSError):  # closed by now
            ask_peer(self.sock)

    def settle(self, handoff: "Handoff", id: int, state: TcpSocket | None) -> None:
        """Count what came in between the reading of the counts and the first packet of the flow."""
        if state is None:
            return
        late = state.bytes_in - self._bytes_in - (state.fin_received and self.ended)
        if late > 0:
            handoff.amend(self.key, id, packets=1, octets=late)


class Handoff:
    """Hands tunnels to the kernel. For one thread, in the network namespace of the sockets."""

    def __init__(
        self,
        maps: Mapping[str, Map],
        programs: HandoffPrograms,
        splices: Splices,
        table: FlowTable,
        report: Report,
        ends: FlowEnds,
        ports: NatPorts = NatPorts(),  # noqa: B008  (frozen)
    ) -> None:
        """`report` is told of a tunnel that ends here, and not in the kernel; `ends` of what is not to be
        counted twice.
        """
        self._ends = ends
        self.sockets = TcpSockets(programs.socket)
        self.splices = splices
        self.table = table
        self.report = report
        self._amend = programs.amend
        self._flows = maps["flows"]
        self._interfaces = maps["interfaces"]
        self._tunnels = TunnelTable(maps["tunnels"])
        self._ports = ports

    def attempt(
        self, client: socket.socket, upstream: socket.socket, facts: TunnelFacts
    ) -> Draining | HandoffRefusal:
        """Enter the flow of two connected sockets, unless they cannot be joined.

        User space must hold none of their bytes: nothing is read and not yet written. On a `Draining` both
        sockets are its own; on a refusal nothing has changed.
        """
        try:
            states = self.sockets.ask(client), self.sockets.ask(upstream)
            keys = arriving_key(client), arriving_key(upstream)
        except OSError:
            return HandoffRefusal.CLOSED
        if states[0] is None or states[1] is None:
            return HandoffRefusal.CLOSED
        refused = joining.refusal(states[0], states[1], self._is_attached)
        if refused:
            return refused
        if not self._ports.first <= layouts.read_port(keys[1][34:36]) <= self._ports.last:
            return HandoffRefusal.SOURCE_PORT
        splice = joining.splice(facts.id, states[0], states[1])
        place = self.splices.place(splice)
        if place is None:
            return HandoffRefusal.TABLE_FULL
        entries = _entries(facts, place, keys, (states[0], states[1]))
        # What was carried by sockets was counted there.
        recount = self._ends.enter(keys[0], *entries, facts.tunnel)
        refused = self._enter(facts, keys, entries)
        if refused:
            recount()
            self.splices.give_back(place)
            return refused
        if self._has_ended(client, upstream) and self._withdraw(keys):
            recount()
            return HandoffRefusal.CLOSED
        ends = _End(client, keys[0], states[0], states[1]), _End(upstream, keys[1], states[1], states[0])
        client.setblocking(False)
        upstream.setblocking(False)
        lift_limits(client, upstream)
        return Draining(self, place, splice, ends)

    def holds(self, key: bytes, id: int) -> bool:
        """Whether the flow is established."""
        raw = self._flows.get(key)
        return raw is not None and layouts.read_flow(raw).id == id

    def amend(
        self,
        key: bytes,
        id: int,
        *,
        packets: int = 0,
        octets: int = 0,
        flags: int = 0,
        peer_fin_ack: int = 0,
    ) -> None:
        """Add to one direction of a flow while packets change it too; nothing where it has ended."""
        question = layouts.AMENDMENT.struct.pack(key, id, packets, octets, peer_fin_ack, flags)
        run(self._amend, _LINK + question)

    def _enter(
        self, facts: TunnelFacts, keys: tuple[bytes, bytes], entries: tuple[bytes, bytes]
    ) -> HandoffRefusal | None:
        """The flow's two entries, the client's last: from then on it is one."""
        client, backend = keys
        entered: list[bytes] = []
        try:
            self._tunnels.put(HeldTunnel(facts.id, client, facts.tunnel))
            for key, entry in ((backend, entries[1]), (client, entries[0])):
                self._flows.set(key, entry, NO_EXIST)
                entered.append(key)
        except KernelError as error:
            self._flows.delete_many(entered)
            if error.errno == errno.EEXIST:
                return HandoffRefusal.TAKEN
            if isinstance(error, MapFull):
                return HandoffRefusal.TABLE_FULL
            raise
        return None

    def _has_ended(self, client: socket.socket, upstream: socket.socket) -> bool:
        """Whether one of the connections came to its end between the first look and the flow.

        Its peer has closed, and knows of no connection that could go on. What its socket has received is all
        that there was, so the sockets can finish as if nothing had been tried.
        """
        try:
            return not all(joining.may_carry(self.sockets.ask(sock)) for sock in (client, upstream))
        except OSError:
            return True

    def _withdraw(self, keys: tuple[bytes, bytes]) -> bool:
        """Take the flow back; False where it has ended. Its place is found to be free by the next sweep: a
        packet may be on its way there.
        """
        client, backend = keys
        if not self._flows.delete(client):
            return False
        self._flows.delete(backend)
        return True

    def _is_attached(self, ifindex: int) -> bool:
        if not 0 < ifindex < self._interfaces.max_entries:
            return False
        raw = self._interfaces.get(layouts.U32.pack(ifindex))
        return raw is not None and layouts.INTERFACE.struct.unpack(raw)[2] != 0


def _entries(
    facts: TunnelFacts, place: int, keys: tuple[bytes, bytes], states: tuple[TcpSocket, TcpSocket]
) -> tuple[bytes, bytes]:
    """Both directions, the client's first."""
    now, (client, backend) = KernelClock().monotonic, keys
    return (
        _entry(facts, place, now, backend, states[0], states[1], 0),
        _entry(facts, place, now, client, states[1], states[0], layouts.FLAG_REPLY),
    )


def _entry(
    facts: TunnelFacts, place: int, now: int, other: bytes, own: TcpSocket, peer: TcpSocket, reply: int
) -> bytes:
    """One direction: what `own` receives goes out under the tuple of `other`, reversed."""
    source, destination, source_port, destination_port, _ = layouts.read_key(other)
    flags, peer_fin_ack = joining.flags(own, peer)
    headers = (20 if source.startswith(layouts.ANY_V4[:12]) else 40) + 20
    if own.options & Option.TIMESTAMPS:
        headers += 12
    return layouts.FLOW.struct.pack(
        *(destination, source, destination_port, source_port),
        *(0, now, own.segments_in, own.bytes_in + own.segments_in * headers),
        *(0, 0, 0, bytes(6), bytes(6), layouts.STATE_ESTABLISHED, flags | reply, 1),
        *(facts.id, facts.started, facts.mapping, facts.revision, peer_fin_ack, place),
    )


def new_flow_id() -> int:
    """An id that no flow of the programs has: the same clock, and a CPU number that they reach last."""
    return KernelClock().monotonic >> 9 << 6 | 63


def close_silently(sock: socket.socket) -> None:
    """Close a TCP socket without FIN or RST, whatever is in its queues."""
    with suppress(OSError):
        enter_repair(sock)
    sock.close()
