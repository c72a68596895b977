"""Who carries most right now, and who is refused most: sums with rates, while somebody looks."""

import asyncio
import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from marchproxy.dataplane.allowance import ALLOWANCE, WALK, Allowance
from marchproxy.dataplane.events import EventHub
from marchproxy.dataplane.flowtotals import FlowTotals, Grouping, Sum, keys, shown
from marchproxy.dataplane.records import Decision, Denials, Event, EventKind
from marchproxy.dataplane.refused import ENDS

FRESH = 1.0
"""Seconds that a list is used: several who look at it share one walk over the flows."""
IDLE = 60.0
"""Seconds without a question after which a list is forgotten."""
REASON = "reason"


class TopOrder(StrEnum):
    """What a list can be sorted by; the most first."""

    BYTES_PER_S = "bytes_per_s"
    PACKETS_PER_S = "packets_per_s"
    BYTES = "bytes"
    PACKETS = "packets"
    FLOWS = "flows"


@dataclass(frozen=True, slots=True)
class TopRow:
    """What one service, address, mapping or reason has carried: live flows, and rates since the last walk."""

    name: str
    mapping: str
    """Of a reason; otherwise empty."""
    flows: int
    packets: int
    bytes: int
    packets_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class TopQuestion:
    """What a list is of."""

    by: str
    """A `Grouping`, or `REASON`, which is of refusals alone: by reason and mapping."""
    denied: bool = False
    """Of refusals instead of live flows."""

    @property
    def refusals(self) -> bool:
        """Whether it is about them."""
        return self.denied or self.by == REASON

    @property
    def measured(self) -> bool:
        """Whether bytes are known: the record of a refusal does not have them, the counters of tiers do."""
        return not self.refusals or self.by in (REASON, Grouping.MAPPING)


@dataclass(frozen=True, slots=True)
class TopList:
    """The first rows of a list."""

    of: TopQuestion
    rows: Sequence[TopRow]
    total: int
    """Rows that there would be without a limit."""
    seconds: float
    """What rates are over; 0: this is the first walk, and there are none yet."""


class Facts(Protocol):
    """Where the numbers come from."""

    @property
    def events(self) -> EventHub:
        """What ends."""

    async def totals(self, by: Grouping) -> FlowTotals:
        """All live flows added up. What has ended before is told before this returns, as far as it may be."""

    async def listen(self, kinds: frozenset[EventKind], told: Callable[[Event], None]) -> None:
        """Have `told` called for each of these events from the return on."""

    def unlisten(self, told: Callable[[Event], None]) -> None:
        """No longer."""

    def denials(self) -> Sequence[Denials]:
        """What was refused."""

    async def catch_up(self) -> None:
        """Returns when what was refused before is told, as far as it may be."""

    async def untold(self) -> Sequence[Decision]:
        """What was refused and is told with the client's next attempt, services known."""


class TopLists:
    """Lists by what they are asked for."""

    def __init__(self, facts: Facts, allowance: Allowance = ALLOWANCE) -> None:
        self._facts = facts
        self._allowance = allowance
        self._lists: dict[TopQuestion, _Watch] = {}

    async def list(self, of: TopQuestion, order: TopOrder, limit: int) -> TopList:
        """The first `limit` rows."""
        watch = self._lists.get(of)
        if watch is None:
            watch = self._lists[of] = (
                _Denied(self._facts, self._allowance, of.by)
                if of.refusals
                else _Carried(self._facts, self._allowance, Grouping(of.by))
            )
        await watch.refresh()
        # A million rows take seconds, in which others have the loop.
        rows = await asyncio.to_thread(heapq.nlargest, limit, watch.rows(), key=_KEYS[order])
        return TopList(of, [_named(row) for row in rows], watch.count, watch.seconds)

    def rest(self) -> None:
        """Forget what nobody asks for any more; to be called about once a second."""
        now = time.monotonic()
        for of in [of for of, watch in self._lists.items() if now > watch.asked + IDLE]:
            self._lists.pop(of).end()


type _Sums = Mapping[Any, Sum]
"""By the keys of `FlowTotals`, or by reason and mapping."""


@dataclass(frozen=True, slots=True)
class _Row:
    key: Any
    held: Sum
    packets: float
    """A second, as `bytes`."""
    bytes: float


_KEYS: Mapping[TopOrder, Callable[[_Row], tuple[float, ...]]] = {
    TopOrder.BYTES_PER_S: lambda row: (row.bytes, row.packets, row.held.bytes, row.held.packets),
    TopOrder.PACKETS_PER_S: lambda row: (row.packets, row.bytes, row.held.packets, row.held.bytes),
    TopOrder.BYTES: lambda row: (row.held.bytes, row.bytes),
    TopOrder.PACKETS: lambda row: (row.held.packets, row.packets),
    TopOrder.FLOWS: lambda row: (row.held.flows, row.bytes, row.held.bytes, row.held.packets),
}


class _Watch:
    """One list: the sums of the last walk, and those before it."""

    def __init__(self, facts: Facts, allowance: Allowance) -> None:
        self.facts = facts
        self._allowance = allowance
        self.seconds = 0.0
        self.asked = time.monotonic()
        self._lock = asyncio.Lock()
        self.cost = 0.0
        """Seconds of a processor that the last walk took."""
        self._at = 0.0
        self._now: _Sums = {}
        self._before: _Sums = {}
        self._ended: _Sums = {}

    async def refresh(self) -> None:
        """Walk again if it is time."""
        self.asked = time.monotonic()
        async with self._lock:
            began = time.monotonic()
            if self._at and began < self._at + max(FRESH, self._pause()):
                return
            found, ended = await self.look()
            now = time.monotonic()
            # What was counted at the first walk is of no time that is known.
            self._before, self._now, self._ended = (self._now if self._at else found), found, ended
            self.seconds = now - self._at if self._at else 0.0
            self._at = now

    def _pause(self) -> float:
        """Seconds that the list is used. Without rates it is soon made anew: somebody waits for them."""
        return self._allowance.pause(self.cost) if self.seconds else self.cost / WALK

    async def look(self) -> tuple[_Sums, _Sums]:
        """What there is, and what has ended since the last look."""
        raise NotImplementedError

    def end(self) -> None:
        """Nobody looks any more."""

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self._now.keys() | self._ended.keys())

    def rows(self) -> Iterator[_Row]:
        """All of them. What has ended counts for the rates, and no longer for the sums."""
        # Another walk puts others in their place, and leaves these as they are.
        sums = self._now, self._before, self._ended
        for key in sums[0].keys() | sums[2].keys():
            held, before, ended = (each.get(key, _NOTHING) for each in sums)
            yield _Row(
                key,
                held,
                self._rate(held.packets + ended.packets - before.packets),
                self._rate(held.bytes + ended.bytes - before.bytes),
            )

    def _rate(self, count: int) -> float:
        return round(max(0, count) / self.seconds, 1) if self.seconds else 0.0


_NOTHING = Sum()


class _Carried(_Watch):
    """Live flows. Those that end between two walks would be missing from the rates, so ends are heard."""

    def __init__(self, facts: Facts, allowance: Allowance, by: Grouping) -> None:
        super().__init__(facts, allowance)
        self._by = by
        self._over = FlowTotals()
        self._listening = False

    async def look(self) -> tuple[_Sums, _Sums]:
        if not self._listening:
            self._listening = True
            await self.facts.listen(frozenset({EventKind.FLOW_END}), self._note)
        found = await self.facts.totals(self._by)
        self.cost = found.cost
        over, self._over = self._over, FlowTotals()
        return found, over

    def end(self) -> None:
        self.facts.unlisten(self._note)

    def _note(self, event: Event) -> None:
        if event.flow:
            self._over.take(event.flow, self._by)


class _Denied(_Watch):
    """Refusals: by reason or mapping since the tables were made, otherwise since the daemon began."""

    def __init__(self, facts: Facts, allowance: Allowance, by: str) -> None:
        super().__init__(facts, allowance)
        self._by = by

    async def look(self) -> tuple[_Sums, _Sums]:
        if self._by in ENDS:
            return await self._ends(Grouping(self._by)), {}
        found: dict[Any, Sum] = {}
        for item in self.facts.denials():
            if not item.audited:
                key = (item.reason.name, item.mapping) if self._by == REASON else item.mapping
                found.setdefault(key, Sum()).add(Sum(0, item.traffic.packets, item.traffic.bytes))
        return found, {}

    async def _ends(self, by: Grouping) -> _Sums:
        """What is told, then what is not: what is told in between is missing for a moment, and never there
        twice.
        """
        await self.facts.catch_up()
        began = time.thread_time()
        told = self.facts.events.refused.packets(by)
        found = {key: Sum(0, packets) for key, packets in told.items()}
        for decision in await self.facts.untold():
            for key in keys(decision, by):
                found.setdefault(key, Sum()).packets += decision.count
        self.cost = time.thread_time() - began
        return found


def _named(row: _Row) -> TopRow:
    key = row.key
    name, mapping = key if isinstance(key, tuple) else (key, "")
    held = row.held
    return TopRow(shown(name), mapping, held.flows, held.packets, held.bytes, row.packets, row.bytes)
