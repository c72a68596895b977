"""Reading, expiring and ending flows in the kernel's tables."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.clock import KernelClock
from marchproxy.dataplane.kernel.layouts import FlowEntry, FlowKey
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.records import RecordReader
from marchproxy.dataplane.records import Event, EventKind, Flow
from marchproxy.model.reason import Reason

TCP, UDP = 6, 17
_FLAGS_OFFSET = layouts.FLOW.struct.size - 7
"""`state` is one before, `flags` here: enough to skip half of all entries without decoding them."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds of silence after which a flow ends."""

    tcp_established: float = 7440
    """RFC 5382 REQ-5: not below two hours and four minutes."""
    tcp_closing: float = 300
    tcp_opening: float = 60
    udp: float = 180
    """RFC 4787 REQ-5: not below two minutes."""
    udp_unanswered: float = 30
    closed: float = 10
    """How long stragglers of a closed flow still find their way, where the table has room."""


class Conversation:
    """A flow as two entries: what the client sent under `key`, and what came back."""

    __slots__ = ("entry", "key", "raw_key", "reply", "table")

    def __init__(self, table: Map, raw_key: bytes, entry: FlowEntry, reply: FlowEntry) -> None:
        self.table = table
        self.raw_key = raw_key
        self.key: FlowKey = layouts.read_key(raw_key)
        self.entry = entry
        self.reply = reply


class FlowTable:
    """Both flow tables of the kernel."""

    def __init__(self, maps: Mapping[str, Map], names: MappingNames, timeouts: Timeouts) -> None:
        self._established = maps["flows"]
        self._opening = maps["opening"]
        self._names = names
        self._timeouts = timeouts

    def list(self, limit: int) -> list[Flow]:
        """Live flows, established ones first, at most `limit`."""
        reader = RecordReader(self._names)
        return [reader.flow(each.key, each.entry, each.reply) for each in islice(self._live(), limit)]

    def expire(self, report: Callable[[Event], None]) -> int:
        """End flows that have been silent for too long. The number of entries that stay in the established table."""
        clock = KernelClock()
        return self._end(lambda each: self._is_idle(each, clock), Reason.IDLE, report)

    def end_where(self, ended: Callable[[FlowKey, FlowEntry], bool], report: Callable[[Event], None]) -> None:
        """End the flows for which `ended` is true, because policy changed."""
        self._end(lambda each: ended(each.key, each.entry), Reason.POLICY_CHANGED, report)

    def _end(self, condition: Callable[[Conversation], bool], reason: Reason, report: Callable[[Event], None]) -> int:
        reader = RecordReader(self._names)
        counts = {self._established.fd: 0, self._opening.fd: 0}
        for table in (self._established, self._opening):
            gone: list[bytes] = []
            for each in self._conversations(table):
                if not condition(each):
                    counts[table.fd] += 2
                    continue
                gone += (each.raw_key, each.entry.other_key(each.key.protocol))
                if self._was_reported(each):
                    flow = reader.flow(each.key, each.entry, each.reply, reason)
                    report(Event(EventKind.FLOW_END, flow.decision, flow))
            table.delete_many(gone)
        return counts[self._established.fd]

    @staticmethod
    def _was_reported(each: Conversation) -> bool:
        """Whether its start was reported and its end was not."""
        answered = each.key.protocol == UDP and each.entry.state == layouts.STATE_ANSWERED
        return answered or each.entry.state == layouts.STATE_ESTABLISHED

    def _is_idle(self, each: Conversation, clock: KernelClock) -> bool:
        silent = clock.age(max(each.entry.last_seen, each.reply.last_seen))
        return silent > self._allowed_silence(each)

    def _allowed_silence(self, each: Conversation) -> float:
        state, timeouts = each.entry.state, self._timeouts
        if state == layouts.STATE_CLOSED:
            return timeouts.closed
        if each.key.protocol == UDP:
            return timeouts.udp_unanswered if state == layouts.STATE_OPENING else timeouts.udp
        if state != layouts.STATE_ESTABLISHED:
            return timeouts.tcp_opening
        closing = (each.entry.flags | each.reply.flags) & layouts.FLAG_FIN
        return timeouts.tcp_closing if closing else timeouts.tcp_established

    def _live(self) -> Iterator[Conversation]:
        for table in (self._established, self._opening):
            for each in self._conversations(table):
                if each.entry.state != layouts.STATE_CLOSED:
                    yield each

    @staticmethod
    def _conversations(table: Map) -> Iterator[Conversation]:
        """Each conversation once, under its client's key. One whose other half was evicted is shown with what there is."""
        for raw_key, raw in table.items():
            if raw[_FLAGS_OFFSET] & layouts.FLAG_REPLY:
                continue
            entry = layouts.read_flow(raw)
            raw_reply = table.get(entry.other_key(raw_key[36]))
            reply = layouts.read_flow(raw_reply) if raw_reply else entry._replace(packets=0, octets=0)
            yield Conversation(table, raw_key, entry, reply)
