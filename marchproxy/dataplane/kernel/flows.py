"""Reading, expiring and ending flows in the kernel's tables."""

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice
from typing import Self

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.beginnings import Beginnings
from marchproxy.dataplane.kernel.clock import KernelClock
from marchproxy.dataplane.kernel.layouts import ICMP, ICMPV6, TCP, UDP, FlowEntry, FlowKey
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.kernel.pressure import Census
from marchproxy.dataplane.kernel.records import RecordReader
from marchproxy.dataplane.kernel.tunnels import HeldTunnel, TunnelTable
from marchproxy.dataplane.records import Event, EventKind, Flow
from marchproxy.model.appliance import Settings
from marchproxy.model.reason import Reason

_PROTOCOL = 36
"""Offset of the protocol in a packed key."""
_DESTINATION, _DESTINATION_PORT = slice(16, 32), slice(34, 36)
"""Where a packed flow sends its packets."""
_ID, _SPLICE = slice(96, 104), slice(124, 128)
_PULSE = layouts.FLOW.pick("last_seen", "state", "flags")
"""Enough to pass over most entries without decoding them: a million of them should cost a second."""

_BEGUN = (layouts.STATE_ANSWERED, layouts.STATE_ESTABLISHED)
"""What the beginning was told of; in `opening` the second is on its way to the other table."""

type Report = Callable[[Event], None]
type HangUp = Callable[[bytes], None]
"""Told the key of packets whose sender shall hear that its flow is over; see `hangup`."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds of silence after which a flow ends."""

    tcp_established: float = 7440
    """RFC 5382 REQ-5: not below two hours and four minutes."""
    tcp_closing: float = 300
    """One side has closed. The same RFC: not below four minutes."""
    tcp_opening: float = 60
    udp: float = 180
    """RFC 4787 REQ-5: not below two minutes."""
    udp_unanswered: float = 30
    icmp: float = 30
    """Echo. RFC 5508 REQ-1 wants a minute for questions of one identifier; ping asks every second."""
    closed: float = 10
    """How long stragglers of a closed flow still find their way, where the table has room."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of the appliance's settings."""
        return cls(
            settings.timeout_tcp_established,
            settings.timeout_tcp_closing,
            settings.timeout_tcp_opening,
            settings.timeout_udp,
            settings.timeout_udp_unanswered,
            settings.timeout_icmp,
        )

    def limits(self) -> dict[tuple[int, int, int], int]:
        """Nanoseconds by protocol, state and the two closing flags."""
        tcp = {
            layouts.STATE_OPENING: self.tcp_opening,
            layouts.STATE_ANSWERED: self.tcp_opening,
            layouts.STATE_ESTABLISHED: self.tcp_established,
            layouts.STATE_CLOSED: self.closed,
        }
        udp = dict.fromkeys(tcp, self.udp) | {layouts.STATE_OPENING: self.udp_unanswered}
        icmp = dict.fromkeys(tcp, self.icmp)
        seconds = {
            (protocol, state, flags): allowed
            for protocol, by_state in ((TCP, tcp), (UDP, udp), (ICMP, icmp), (ICMPV6, icmp))
            for state, allowed in by_state.items()
            for flags in range(0, layouts.FLAGS_CLOSING + 1, 2)
        }
        for flags in (layouts.FLAG_FIN, layouts.FLAG_PEER_FIN, layouts.FLAGS_CLOSING):
            seconds[TCP, layouts.STATE_ESTABLISHED, flags] = self.tcp_closing
        return {key: int(allowed * 1e9) for key, allowed in seconds.items()}


@dataclass(frozen=True, slots=True)
class Conversation:
    """A flow as two entries: one direction's as found, and the other's if the table still has it."""

    raw_key: bytes
    entry: FlowEntry
    other_key: bytes
    other: FlowEntry | None

    @property
    def key(self) -> FlowKey:
        return layouts.read_key(self.raw_key)

    @property
    def was_reported(self) -> bool:
        """Whether its start was reported and its end was not."""
        answered = self.raw_key[_PROTOCOL] != TCP and self.entry.state == layouts.STATE_ANSWERED
        return answered or self.entry.state == layouts.STATE_ESTABLISHED

    def read(self, reader: RecordReader, reason: Reason = Reason.FORWARDED) -> Flow:
        """As a record; for what was found as client to backend."""
        reply = self.other or self.entry._replace(packets=0, octets=0, ifindex=0)
        return reader.flow(self.key, self.entry, reply, reason)


def _in_silence(_: bytes) -> None:
    """Peers learn of the end when they next speak."""


def _uncounted(_: Flow) -> None:
    """Nobody adds up."""


class FlowTable:
    """Both flow tables of the kernel. For one thread."""

    def __init__(
        self,
        maps: Mapping[str, Map],
        names: MappingNames,
        timeouts: Timeouts,
        ports: NatPorts = NatPorts(),  # noqa: B008  (frozen)
        hang_up: HangUp = _in_silence,
        ended: Callable[[Flow], None] = _uncounted,
    ) -> None:
        """`hang_up` is called for both directions of handed-off flows that are ended here, `ended` is told of
        every flow that is, reported or not.
        """
        self._ended = ended
        self._established = maps["flows"]
        self._opening = maps["opening"]
        self._beginnings = Beginnings(maps["beginnings"])
        self._tunnels = TunnelTable(maps["tunnels"])
        self._names = names
        self._limits = timeouts.limits()
        self._ports = ports
        self._hang_up = hang_up

    @property
    def unended(self) -> int:
        """Flows whose beginning was told and whose end never will be. For any thread."""
        return self._beginnings.unended

    def allow(self, timeouts: Timeouts) -> None:
        """Hold all flows to these from now on."""
        self._limits = timeouts.limits()

    def list(self, limit: int) -> list[Flow]:
        """Live flows, established ones first, at most `limit`. Reads no further than it must."""
        reader = RecordReader(self._names, self._tunnels)
        return [each.read(reader) for each in islice(self._live(), limit)]

    def touching(self, addresses: AbstractSet[bytes]) -> set[bytes]:
        """Those of packed `addresses` that packets of some flow come from or go to, in either table."""
        found: set[bytes] = set()
        for table in (self._established, self._opening):
            for raw_key, _ in table.items():
                found.update(addresses & {raw_key[:16], raw_key[16:32]})
        return found

    def expire(self, report: Report) -> Census:
        """End flows that have been silent for too long, and count those that stay.

        An entry that lost its other half goes too: it would keep a port towards a backend for ever.
        """
        now, limits = KernelClock().monotonic, self._limits
        # What only another version knows is not ours to end early.
        longest = max(limits.values())
        census = Census(self._ports)

        def is_silent(protocol: int, last_seen: int, state: int, flags: int) -> bool:
            return now - last_seen > limits.get((protocol, state, flags & layouts.FLAGS_CLOSING), longest)

        def is_suspect(raw_key: bytes, raw: bytes) -> bool:
            last_seen, state, flags = _PULSE.unpack(raw)
            if flags & layouts.FLAG_REPLY:
                census.see_reply(raw_key, raw)
            if flags & layouts.FLAG_SPLICED:
                census.spliced.add(layouts.U32.unpack(raw[_SPLICE])[0])
            return is_silent(raw_key[_PROTOCOL], last_seen, state, flags)

        def is_suspect_opening(raw_key: bytes, raw: bytes) -> bool:
            last_seen, state, flags = _PULSE.unpack(raw)
            census.half_open += state != layouts.STATE_CLOSED
            if state in _BEGUN and raw_key[_PROTOCOL] != TCP and not flags & layouts.FLAG_REPLY:
                census.begun += 1
            if flags & layouts.FLAG_SPLICED:
                census.spliced.add(layouts.U32.unpack(raw[_SPLICE])[0])
            return is_silent(raw_key[_PROTOCOL], last_seen, state, flags)

        def is_idle(each: Conversation) -> bool:
            other = each.other
            if other is None:
                return True
            # Of two silent halves, the client's turn decides.
            is_client = not each.entry.flags & layouts.FLAG_REPLY
            return is_client and is_silent(each.key.protocol, other.last_seen, other.state, other.flags)

        census.established = self._end(self._established, is_suspect, is_idle, Reason.IDLE, report)
        told = self._beginnings.told
        census.opening = self._end(self._opening, is_suspect_opening, is_idle, Reason.IDLE, report)
        self._beginnings.settle(told, census.begun)
        return census

    def end_where(
        self, concerned: Callable[[bytes], bool], refused: Callable[[FlowKey], bool], report: Report
    ) -> None:
        """End the flows that policy refuses now. `concerned` is asked first, of packed keys.

        Not those that user space has handed off: rules do not decide about them, see `end_tunnels`.
        """

        def is_concerned(raw_key: bytes, raw: bytes) -> bool:
            passed_over = layouts.FLAG_REPLY | layouts.FLAG_SPLICED
            return not _PULSE.unpack(raw)[2] & passed_over and concerned(raw_key)

        for table in (self._established, self._opening):
            self._end(table, is_concerned, lambda each: refused(each.key), Reason.POLICY_CHANGED, report)

    def end_tunnels(self, judge: Callable[[Flow, HeldTunnel], Reason | None], report: Report) -> None:
        """End the flows that user space has handed off and `judge` gives a reason against."""
        reader = RecordReader(self._names, self._tunnels)
        for held in self._tunnels:
            each = self._established_flow(held.key, held.id)
            reason = judge(each.read(reader), held) if each else None
            if each and reason and self._end_one(each, reason, report):
                self._tell(each)

    def end(self, raw_key: bytes, id: int, reason: Reason, report: Report) -> bool:
        """End one established flow by its client's key; False where it has ended already."""
        each = self._established_flow(raw_key, id)
        return each is not None and self._end_one(each, reason, report)

    def cut(self, ids: AbstractSet[int], reason: Reason, report: Report) -> set[int]:
        """End flows by their ids, handed off or not; those that were there.

        Both ends learn of it at once where user space had handed it off, else when they next speak: a packet
        of no flow is answered with a reset, by the programs or the host.
        """
        packed = {layouts.U64.pack(id) for id in ids}
        found: set[int] = set()

        def is_meant(_: bytes, raw: bytes) -> bool:
            return raw[_ID] in packed and not _PULSE.unpack(raw)[2] & layouts.FLAG_REPLY

        def note(each: Conversation) -> bool:
            if each.entry.state != layouts.STATE_CLOSED:
                found.add(each.entry.id)
            return True

        for table in (self._established, self._opening):
            self._end(table, is_meant, note, reason, report)
        return found

    def end_blocked(self, reason_of: Callable[[FlowKey, bytes], Reason | None], report: Report) -> None:
        """End the flows that are blocked now. `reason_of` is told a key and the packed backend."""

        def is_forward(_: bytes, raw: bytes) -> bool:
            return not _PULSE.unpack(raw)[2] & layouts.FLAG_REPLY

        for reason in (Reason.BLOCKED_SOURCE, Reason.BLOCKED_DESTINATION):

            def is_blocked(each: Conversation, reason: Reason = reason) -> bool:
                return reason_of(each.key, each.entry.destination) is reason

            for table in (self._established, self._opening):
                self._end(table, is_forward, is_blocked, reason, report)

    def forget_unanswered(self, places: AbstractSet[bytes]) -> None:
        """Delete flows that were opened to these backends (packed addresses and ports) and never answered.

        The client tries again by itself, and what it sends then opens a flow to another backend. Nobody was
        told of them, so nobody is told of their end.
        """
        gone: list[bytes] = []
        for raw_key, raw in self._opening.items():
            if raw[_DESTINATION] + raw[_DESTINATION_PORT] in places:
                entry = layouts.read_flow(raw)
                if entry.state == layouts.STATE_OPENING and not entry.flags & layouts.FLAG_REPLY:
                    gone += [raw_key, entry.other_key(raw_key[_PROTOCOL])]
        self._opening.delete_many(gone)

    def _end(
        self,
        table: Map,
        suspect: Callable[[bytes, bytes], bool],
        ended: Callable[[Conversation], bool],
        reason: Reason,
        report: Report,
    ) -> int:
        """Delete conversations, and report those whose start was; how many entries stay."""
        reader = RecordReader(self._names, self._tunnels)
        count, gone, over = 0, list[bytes](), list[Conversation]()
        for raw_key, raw in table.items():
            count += 1
            if not suspect(raw_key, raw):
                continue
            each = find(table, raw_key, raw)
            if not ended(each):
                continue
            if each.other:
                gone.append(each.other_key)
            if not each.was_reported or each.entry.flags & layouts.FLAG_REPLY:
                gone.append(raw_key)
            elif table.delete(raw_key):
                # Else the kernel has ended it in this very moment, and reported that itself.
                count -= 1
                flow = each.read(reader, reason)
                self._ended(flow)
                report(Event(EventKind.FLOW_END, flow.decision, flow))
                over.append(each)
        left = count - table.delete_many(gone)
        if table is self._opening:
            self._beginnings.ended(len(over))
        for each in over:
            self._tell(each)
        return left

    def _tell(self, each: Conversation) -> None:
        """After both entries are gone, lest one of them carries what is answered."""
        if each.entry.flags & layouts.FLAG_SPLICED:
            self._hang_up(each.raw_key)
            self._hang_up(each.other_key)

    def _established_flow(self, raw_key: bytes, id: int) -> Conversation | None:
        raw = self._established.get(raw_key)
        each = find(self._established, raw_key, raw) if raw else None
        return each if each and each.entry.id == id else None

    def _end_one(self, each: Conversation, reason: Reason, report: Report) -> bool:
        """As `_end`, of one that is established."""
        if not self._established.delete(each.raw_key):
            return False
        if each.other:
            self._established.delete(each.other_key)
        flow = each.read(RecordReader(self._names, self._tunnels), reason)
        self._ended(flow)
        report(Event(EventKind.FLOW_END, flow.decision, flow))
        return True

    def _live(self) -> Iterator[Conversation]:
        for table in (self._established, self._opening):
            for raw_key, raw in table.items():
                _, state, flags = _PULSE.unpack(raw)
                if not flags & layouts.FLAG_REPLY and state != layouts.STATE_CLOSED:
                    yield find(table, raw_key, raw)


def find(table: Map, raw_key: bytes, raw: bytes) -> Conversation:
    """The conversation of an entry. In the place of an evicted half may be another flow's: told by its id."""
    entry = layouts.read_flow(raw)
    other_key = entry.other_key(raw_key[_PROTOCOL])
    raw_other = table.get(other_key)
    other = layouts.read_flow(raw_other) if raw_other else None
    return Conversation(raw_key, entry, other_key, other if other and other.id == entry.id else None)
