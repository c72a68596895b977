"""Walks over the flow tables for whoever looks at them: ranks flows for a page, and adds them up.

A walk looks at every entry, in a thread of its own beside the one that changes the tables, and decodes only
what goes onto the page. Each direction of a flow is an entry, a *half*; where both count, the first that
comes along waits for the other.
"""

import heapq
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from marchproxy.dataplane.allowance import ALLOWANCE, Allowance
from marchproxy.dataplane.carried import Carried, Load
from marchproxy.dataplane.flowquery import FlowFilter, FlowOrder, FlowPage, FlowQuestion, SortKey
from marchproxy.dataplane.flowtotals import FlowTotals, Grouping, GroupKey, Sum, sides
from marchproxy.dataplane.kernel import halves, layouts
from marchproxy.dataplane.kernel.flowmatch import FlowMatch, PackedServices
from marchproxy.dataplane.kernel.flows import find
from marchproxy.dataplane.kernel.halves import Half
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.records import RecordReader
from marchproxy.dataplane.kernel.tunnels import TunnelTable
from marchproxy.dataplane.naming import ServiceNames
from marchproxy.dataplane.records import Flow

CHEAP = 0.02
"""Seconds of a processor that a walk may take without being kept: who asks again is told what is so now."""
LEAST = 1_000
"""Flows that are ranked at least, so that the next page costs no walk."""
_KEPT, _LARGEST = 8, 10_000
"""Rankings that are kept, and flows that one may have for that."""
_BATCH = 1024
"""Entries between two looks at whether to stop, and between two moments for other threads."""

_BOTH: dict[SortKey, tuple[int, Callable[[int, int], int]]] = {
    SortKey.LAST_SEEN: (halves.LAST_SEEN, max),
    SortKey.PACKETS: (halves.PACKETS, int.__add__),
    SortKey.BYTES: (halves.BYTES, int.__add__),
}
"""What both halves have a part in, and how the two make one."""

type Ranked = tuple[Any, int, bytes]
"""What a flow is sorted by, its id, and the packed key of its client's direction."""


class Stopped(Exception):
    """The walk was ended, because the tier is."""


class _Ranking(NamedTuple):
    total: int
    found: list[Ranked]
    whole: bool
    """Whether these are all."""
    names: ServiceNames
    made: float
    cost: float
    """Seconds of a processor. What took long is used longer, see `Allowance.pause`."""


class FlowScan:
    """For one thread, which may be another than that of `FlowTable`."""

    def __init__(
        self, maps: Mapping[str, Map], names: MappingNames, allowance: Allowance = ALLOWANCE
    ) -> None:
        self._allowance = allowance
        self._tables = maps["flows"], maps["opening"]
        self._tunnels = TunnelTable(maps["tunnels"])
        self._names = names
        self._rankings: dict[tuple[FlowFilter, FlowOrder | None], _Ranking] = {}
        self._stopped = False

    def stop(self) -> None:
        """End the walk that is on its way, and begin no other. For any thread."""
        self._stopped = True

    def page(self, question: FlowQuestion, services: ServiceNames) -> FlowPage:
        """See `Tier.page`. What flows count is read now, their order may be older (`CHEAP`)."""
        ranking = self._ranking(question, services)
        reader = RecordReader(self._names, self._tunnels)
        asked = ranking.found[question.first : question.first + question.count]
        flows = (self._read(reader, id, raw_key) for _, id, raw_key in asked)
        return FlowPage(ranking.total, [services.complete_flow(flow) for flow in flows if flow])

    def totals(self, by: Grouping, services: ServiceNames) -> FlowTotals:
        """See `Tier.totals`."""
        began = time.thread_time()
        group_of, keys_of = self._grouping(by, services)
        sums: defaultdict[Any, Sum] = defaultdict(Sum)
        for table in self._tables:
            for raw_key, half in self._live(table):
                held = sums[group_of(raw_key, half)]
                held.flows += not half[halves.FLAGS] & layouts.FLAG_REPLY
                held.packets += half[halves.PACKETS]
                held.bytes += half[halves.BYTES]
        found = FlowTotals.of_groups(sums, keys_of)
        found.cost = time.thread_time() - began
        return found

    def carried(self, services: ServiceNames, before: int = 0) -> Carried:
        """What established flows have carried, with `before` those that began before that time of the kernel.
        Of all others an end may never be told.
        """
        began = time.thread_time()
        packed = self._packed(services)
        sums: defaultdict[tuple[int, str, str], Load] = defaultdict(Load)
        for raw_key, half in self._live(self._tables[0]):
            if before and half[halves.STARTED] >= before:
                continue
            ends = packed.source(raw_key, half), packed.destination(raw_key, half)
            held = sums[half[halves.MAPPING], *ends]
            if half[halves.FLAGS] & layouts.FLAG_REPLY:
                held.received_packets += half[halves.PACKETS]
                held.received_bytes += half[halves.BYTES]
            else:
                held.flows += 1
                held.sent_packets += half[halves.PACKETS]
                held.sent_bytes += half[halves.BYTES]
        found = Carried()
        for (mapping, source, destination), load in sums.items():
            found.take(self._names.name(mapping), source, destination, load)
        found.cost = time.thread_time() - began
        return found

    def _ranking(self, question: FlowQuestion, services: ServiceNames) -> _Ranking:
        key, last = (question.wanted, question.order), question.first + question.count
        held = self._rankings.pop(key, None)
        if held and held.names is services and self._lasts(held) and (held.whole or len(held.found) >= last):
            self._rankings[key] = held
            return held
        # Of a processor: where others have most of it, a walk takes long and costs no more for that.
        began = time.thread_time()
        total, found = self._rank(question, max(last, LEAST), services)
        cost = time.thread_time() - began
        made = _Ranking(total, found, len(found) == total, services, time.monotonic(), cost)
        if len(found) <= _LARGEST:
            self._rankings[key] = made
        while len(self._rankings) > _KEPT:
            del self._rankings[next(iter(self._rankings))]
        return made

    def _lasts(self, held: _Ranking) -> bool:
        """Whether it is still used."""
        return held.cost > CHEAP and time.monotonic() < held.made + self._allowance.pause(held.cost)

    def _rank(self, question: FlowQuestion, most: int, services: ServiceNames) -> tuple[int, list[Ranked]]:
        """How many flows match, and the first of them in order."""
        total, order = 0, question.order
        match = self._match(question.wanted, services)

        def counted() -> Iterator[Ranked]:
            nonlocal total
            for table in self._tables:
                for each in self._candidates(table, order, match):
                    total += 1
                    yield each

        candidates = counted()
        if order is None:
            found = list(islice(candidates, most))
            deque(candidates, maxlen=0)
        else:
            found = (heapq.nlargest if order.descending else heapq.nsmallest)(most, candidates)
        return total, found

    def _candidates(self, table: Map, order: FlowOrder | None, match: FlowMatch | None) -> Iterator[Ranked]:
        if match is None and order and order.key in _BOTH:
            return _joined(self._live(table), *_BOTH[order.key])
        value = self._value(table, order)
        return (
            (value(raw_key, half), half[halves.ID], raw_key)
            for raw_key, half in self._live(table)
            if not half[halves.FLAGS] & layouts.FLAG_REPLY and (match is None or match.holds(raw_key, half))
        )

    def _value(self, table: Map, order: FlowOrder | None) -> Callable[[bytes, Half], object]:
        """What a client's half is sorted by; where both halves count, the other one is looked up."""
        match order.key if order else None:
            case None:
                return lambda _, half: 0
            case SortKey.SOURCE:
                return lambda raw_key, _: raw_key[halves.KEY_SOURCE] + raw_key[halves.KEY_SOURCE_PORT]
            case SortKey.DESTINATION:
                return lambda raw_key, _: (
                    raw_key[halves.KEY_DESTINATION] + raw_key[halves.KEY_DESTINATION_PORT]
                )
            case SortKey.MAPPING:
                return lambda _, half: self._names.name(half[halves.MAPPING])
            case SortKey.STARTED:
                return lambda _, half: half[halves.STARTED]
            case key:
                field, together = _BOTH[key]
                return lambda raw_key, half: _together(table, raw_key, half, field, together)

    def _live(self, table: Map) -> Iterator[tuple[bytes, Half]]:
        """Halves of flows that have not ended."""
        for keys, values in table.batches(_BATCH):
            if self._stopped:
                raise Stopped
            entries = zip(halves.RAW_KEY.iter_unpack(keys), halves.HALF.iter_unpack(values), strict=True)
            for (raw_key,), half in entries:
                if half[halves.STATE] != layouts.STATE_CLOSED:
                    yield raw_key, half

    def _match(self, wanted: FlowFilter, services: ServiceNames) -> FlowMatch | None:
        return FlowMatch(wanted, self._names, self._packed(services)) if wanted else None

    def _packed(self, services: ServiceNames) -> PackedServices:
        return PackedServices(self._names, services, {each.id: each.tunnel for each in self._tunnels})

    def _grouping(
        self, by: Grouping, services: ServiceNames
    ) -> tuple[Callable[[bytes, Half], object], Callable[[Any], Iterable[GroupKey]]]:
        """What a half is added up under, and the keys of that."""
        if by is Grouping.MAPPING:
            return lambda _, half: half[halves.MAPPING], lambda number: (self._names.name(number),)
        if by is Grouping.SERVICE:
            packed = self._packed(services)

            def pair(raw_key: bytes, half: Half) -> tuple[str, str]:
                return packed.source(raw_key, half), packed.destination(raw_key, half)

            return pair, lambda names: sides(*names)
        return halves.client if by is Grouping.SOURCE else halves.asked, _address_key

    def _read(self, reader: RecordReader, id: int, raw_key: bytes) -> Flow | None:
        """One flow as it is now; None: it has ended meanwhile."""
        for table in self._tables:
            raw = table.get(raw_key)
            if raw and (found := find(table, raw_key, raw)).entry.id == id:
                return found.read(reader) if found.entry.state != layouts.STATE_CLOSED else None
        return None


def _joined(
    entries: Iterable[tuple[bytes, Half]], field: int, together: Callable[[int, int], int]
) -> Iterator[Ranked]:
    """Flows by what `field` of both halves makes together."""
    clients: dict[int, tuple[int, bytes]] = {}
    replies: dict[int, int] = {}
    for raw_key, half in entries:
        id, value = half[halves.ID], half[field]
        if half[halves.FLAGS] & layouts.FLAG_REPLY:
            client = clients.pop(id, None)
            if client is None:
                replies[id] = value
            else:
                yield together(client[0], value), id, client[1]
        else:
            reply = replies.pop(id, None)
            if reply is None:
                clients[id] = value, raw_key
            else:
                yield together(value, reply), id, raw_key
    # The other half was evicted, or came after the walk had passed its place.
    yield from ((value, id, raw_key) for id, (value, raw_key) in clients.items())


def _together(table: Map, raw_key: bytes, half: Half, field: int, together: Callable[[int, int], int]) -> int:
    raw = table.get(halves.other_key(raw_key, half))
    other = halves.HALF.unpack(raw) if raw else None
    own: int = half[field]
    return together(own, other[field]) if other and other[halves.ID] == half[halves.ID] else own


def _address_key(raw: bytes) -> tuple[GroupKey]:
    return (layouts.read_address(raw).packed,)
