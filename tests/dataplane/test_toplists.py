"""Who carries most: sums of live flows, and rates that miss nothing."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from marchproxy.dataplane import toplists
from marchproxy.dataplane.allowance import WALK, Allowance
from marchproxy.dataplane.events import EventHub
from marchproxy.dataplane.flowtotals import FlowTotals, Grouping
from marchproxy.dataplane.records import Decision, Denials, Event, EventKind, Flow, Traffic
from marchproxy.dataplane.toplists import TopLists, TopOrder, TopQuestion
from marchproxy.model.reason import Reason
from tests.dataplane import facts
from tests.dataplane.loops import looped

MAPPING, SOURCE = TopQuestion("mapping"), TopQuestion("source")


class Clock:
    """The monotonic clock, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


class Known:
    """`Facts` that are invented."""

    def __init__(self) -> None:
        self.events = EventHub()
        self.live: list[Flow] = []
        self.refused: list[Denials] = []
        self.waiting: list[Decision] = []
        """Not told yet."""
        self.in_ring: list[Event] = []
        self.walks = 0
        self.cost = 0.0

    async def totals(self, by: Grouping) -> FlowTotals:
        self.walks += 1
        found = FlowTotals.of(self.live, by)
        found.cost = self.cost
        return found

    async def listen(self, kinds: frozenset[EventKind], told: Callable[[Event], None]) -> None:
        self.events.listen(kinds, told)

    def unlisten(self, told: Callable[[Event], None]) -> None:
        self.events.unlisten(told)

    def denials(self) -> Sequence[Denials]:
        return self.refused

    async def catch_up(self) -> None:
        for event in self.in_ring:
            self.events.publish(event)
        self.in_ring.clear()

    async def untold(self) -> Sequence[Decision]:
        return self.waiting


def flow(mapping: str, packets: int) -> Flow:
    made = facts.flow(facts.decision(mapping=mapping))
    return replace(made, sent=Traffic(packets, packets * 100), received=Traffic())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@looped
async def test_rates_are_what_was_carried_since_the_last_walk(clock: Clock) -> None:
    known = Known()
    lists = TopLists(known)
    known.live = [flow("a", 10), flow("a", 5), flow("b", 100)]
    top = await lists.list(MAPPING, TopOrder.BYTES_PER_S, 10)
    assert (top.seconds, top.total) == (0, 2)
    assert [(row.name, row.flows, row.packets, row.packets_per_s) for row in top.rows] == [
        ("b", 1, 100, 0),
        ("a", 2, 15, 0),
    ]
    clock.now += 2
    known.live = [flow("a", 30), flow("a", 5), flow("b", 100)]
    top = await lists.list(MAPPING, TopOrder.BYTES_PER_S, 10)
    assert top.seconds == 2
    assert [(row.name, row.packets, row.packets_per_s, row.bytes_per_s) for row in top.rows] == [
        ("a", 35, 10, 1000),
        ("b", 100, 0, 0),
    ]
    (first,) = (await lists.list(MAPPING, TopOrder.FLOWS, 1)).rows
    assert first.name == "a"


@looped
async def test_what_ended_between_two_walks_counts_for_the_rates(clock: Clock) -> None:
    known = Known()
    lists = TopLists(known)
    known.live = [flow("a", 10)]
    await lists.list(MAPPING, TopOrder.BYTES_PER_S, 10)
    clock.now += 1
    known.live = []
    for ended in (flow("a", 14), flow("c", 3)):
        known.events.publish(Event(EventKind.FLOW_END, ended.decision, ended))
    top = await lists.list(MAPPING, TopOrder.BYTES_PER_S, 10)
    assert [(row.name, row.flows, row.packets, row.packets_per_s) for row in top.rows] == [
        ("a", 0, 0, 4),
        ("c", 0, 0, 3),
    ]
    clock.now += 1
    assert (await lists.list(MAPPING, TopOrder.BYTES_PER_S, 10)).rows == []


@looped
async def test_those_who_look_share_one_walk(clock: Clock) -> None:
    known = Known()
    lists = TopLists(known)
    for order in TopOrder:
        await lists.list(MAPPING, order, 10)
    assert known.walks == 1
    clock.now += toplists.FRESH
    await lists.list(MAPPING, TopOrder.BYTES, 10)
    assert known.walks == 2


@looped
async def test_what_took_long_is_used_longer(clock: Clock) -> None:
    known = Known()
    known.cost = 2.0
    lists = TopLists(known, Allowance(lambda: None))
    await lists.list(MAPPING, TopOrder.BYTES, 10)
    clock.now += known.cost / WALK - 0.1
    await lists.list(MAPPING, TopOrder.BYTES, 10)
    assert known.walks == 1
    clock.now += 0.2
    await lists.list(MAPPING, TopOrder.BYTES, 10)
    assert known.walks == 2


@looped
async def test_where_nothing_is_idle_there_are_rates_soon_and_then_seldom(clock: Clock) -> None:
    known = Known()
    known.cost = 0.5
    busy = Allowance(lambda: 0.0, processors=2)
    lists = TopLists(known, busy)
    await lists.list(MAPPING, TopOrder.BYTES, 10)
    for walks, pause in enumerate((known.cost / WALK, busy.pause(known.cost)), 1):
        clock.now += pause - 0.1
        await lists.list(MAPPING, TopOrder.BYTES, 10)
        assert known.walks == walks
        clock.now += 0.1
        await lists.list(MAPPING, TopOrder.BYTES, 10)
        assert known.walks == walks + 1
    assert busy.pause(known.cost) > known.cost / WALK


@looped
async def test_a_list_is_forgotten_when_nobody_asks(clock: Clock) -> None:
    known = Known()
    lists = TopLists(known)
    await lists.list(SOURCE, TopOrder.BYTES, 10)
    assert EventKind.FLOW_END in known.events.wanted
    clock.now += toplists.IDLE
    lists.rest()
    assert EventKind.FLOW_END in known.events.wanted
    clock.now += 0.1
    lists.rest()
    assert EventKind.FLOW_END not in known.events.wanted
    assert (await lists.list(SOURCE, TopOrder.BYTES, 10)).seconds == 0


@looped
async def test_refusals_by_reason_and_mapping(clock: Clock) -> None:
    known = Known()
    lists = TopLists(known)
    known.refused = [
        Denials(Reason.NO_MAPPING, "", False, Traffic(10, 600)),
        Denials(Reason.DENY_MAPPING, "m", False, Traffic(4, 240)),
        Denials(Reason.DENY_MAPPING, "audited", True, Traffic(9, 540)),
    ]
    await lists.list(TopQuestion("reason"), TopOrder.PACKETS, 10)
    clock.now += 4
    known.refused[1] = Denials(Reason.DENY_MAPPING, "m", False, Traffic(12, 720))
    top = await lists.list(TopQuestion("reason"), TopOrder.PACKETS_PER_S, 10)
    assert [(row.name, row.mapping, row.packets, row.packets_per_s) for row in top.rows] == [
        ("DENY_MAPPING", "m", 12, 2),
        ("NO_MAPPING", "", 10, 0),
    ]


@looped
async def test_refusals_by_who_is_refused(clock: Clock) -> None:
    known = Known()
    lists = TopLists(known)
    for source, times in (("10.0.0.7", 1), ("10.0.0.9", 3)):
        for _ in range(times):
            known.events.publish(facts.denied(source))
    before = await lists.list(TopQuestion("source", denied=True), TopOrder.PACKETS, 1)
    assert ([(row.name, row.packets) for row in before.rows], before.total) == ([("10.0.0.9", 3)], 2)
    clock.now += 2
    again = facts.denied("10.0.0.7")
    known.events.publish(replace(again, decision=replace(again.decision, count=6)))
    after = await lists.list(TopQuestion("source", denied=True), TopOrder.PACKETS_PER_S, 10)
    assert [(row.name, row.flows, row.packets, row.packets_per_s) for row in after.rows] == [
        ("10.0.0.7", 0, 7, 3),
        ("10.0.0.9", 0, 3, 0),
    ]
    # The walk over live flows is another list, of the same name.
    assert (await lists.list(SOURCE, TopOrder.PACKETS, 10)).rows == []
    assert known.walks == 1


@looped
async def test_what_is_tried_again_counts_once_told_or_not(clock: Clock) -> None:
    known = Known()
    lists = TopLists(known)
    first = facts.denied("10.0.0.7")
    more = replace(first.decision, count=4)
    seen = []
    for known.in_ring, known.waiting in (
        ([first], []),
        ([], [more]),
        # Its next attempt tells of them.
        ([replace(first, decision=replace(more, count=5))], []),
        ([], [replace(more, count=1)]),
    ):
        clock.now += 60
        top = await lists.list(TopQuestion("source", denied=True), TopOrder.PACKETS, 10)
        seen.append([(row.name, row.packets) for row in top.rows])
    assert seen == [[("10.0.0.7", packets)] for packets in (1, 5, 6, 7)]


@looped
async def test_refusals_by_mapping_are_those_of_the_counters(clock: Clock) -> None:
    known = Known()
    known.refused = [
        Denials(Reason.DENY_MAPPING, "m", False, Traffic(4, 240)),
        Denials(Reason.NO_BACKEND, "m", False, Traffic(2, 120)),
        Denials(Reason.DENY_MAPPING, "m", True, Traffic(9, 540)),
    ]
    top = await TopLists(known).list(TopQuestion("mapping", denied=True), TopOrder.BYTES, 10)
    assert [(row.name, row.packets, row.bytes) for row in top.rows] == [("m", 6, 360)]


@pytest.mark.parametrize(
    ("of", "refusals", "measured"),
    [
        (TopQuestion("source"), False, True),
        (TopQuestion("reason"), True, True),
        (TopQuestion("mapping", denied=True), True, True),
        (TopQuestion("service", denied=True), True, False),
    ],
)
def test_bytes_are_known_of_what_is_counted(of: TopQuestion, refusals: bool, measured: bool) -> None:
    assert (of.refusals, of.measured) == (refusals, measured)
