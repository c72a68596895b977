"""Queues that wait for nobody, and count what they cannot keep."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from marchproxy.telemetry.logs import sink as sinks
from marchproxy.telemetry.logs.records import LogClass, Record
from marchproxy.telemetry.logs.sink import QUEUE, Refused, Sink, Unreachable
from tests.dataplane.loops import looped
from tests.telemetry.logs.made import ended


class Place:
    """Takes records, or does what it is told."""

    def __init__(self, most: int = 10, linger: float = 0.0) -> None:
        self.most = most
        self.linger = linger
        self.batches: list[list[int]] = []
        self.attempts = 0
        self.error: Exception | None = None
        self.lost = 0
        self.stuck = asyncio.Event()
        self.stuck.set()
        self.closed = False
        self.unsettled = False
        self.missing = 0
        self.held = 0

    async def send(self, records: Sequence[Record]) -> int:
        self.attempts += 1
        await self.stuck.wait()
        if self.error:
            raise self.error
        self.batches.append([record.id for record in records])  # type: ignore[union-attr]
        return self.lost

    async def close(self) -> int:
        self.closed = True
        return self.missing


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def opened(place: Place) -> Sink:
    return Sink("default", "syslog", "udp://192.0.2.5:514", frozenset(LogClass), place)


def ids(place: Place) -> list[int]:
    return [number for batch in place.batches for number in batch]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(sinks, "LAST_RETRY", 0.02)
    monkeypatch.setattr(sinks, "SETTLE", 0.01)


@looped
async def test_records_arrive_in_order_and_in_batches() -> None:
    place = Place()
    sink = opened(place)
    for number in range(25):
        sink.offer(ended(id=number))
    await until(lambda: len(ids(place)) == 25)
    assert ids(place) == list(range(25))
    assert [len(batch) for batch in place.batches] == [10, 10, 5]
    state = await sink.close()
    assert (state.sent, state.waiting, sum(state.lost.values())) == (25, 0, 0)
    assert place.closed


@looped
async def test_a_full_queue_loses_the_newest_and_counts_them() -> None:
    place = Place()
    place.stuck.clear()
    sink = opened(place)
    for number in range(QUEUE + 50):
        sink.offer(ended(id=number))
    assert sink.state().waiting == QUEUE
    assert sink.state().lost["full"] == 50
    place.stuck.set()
    await until(lambda: sink.state().sent == QUEUE)
    assert ids(place) == list(range(QUEUE))
    await sink.close()


@looped
async def test_what_did_not_arrive_is_sent_again_when_somebody_is_there() -> None:
    place = Place()
    place.error = Unreachable("gone")
    sink = opened(place)
    sink.offer(ended(id=1))
    await until(lambda: place.attempts >= 3)
    assert sink.problem == "gone"
    sink.offer(ended(id=2))
    place.error = None
    await until(lambda: ids(place) == [1, 2])
    await until(lambda: sink.problem == "")
    await sink.close()


@pytest.mark.parametrize("error", [Refused("HTTP 400"), ValueError("ours")])
def test_what_is_refused_is_counted_and_what_follows_is_tried(error: Exception) -> None:
    @looped
    async def run() -> None:
        place = Place(most=2)
        place.error = error
        sink = opened(place)
        for number in range(2):
            sink.offer(ended(id=number))
        await until(lambda: sink.state().lost["refused"] == 2)
        assert str(error) in sink.problem
        place.error = None
        sink.offer(ended(id=9))
        await until(lambda: ids(place) == [9])
        await sink.close()

    run()


@looped
async def test_losses_that_a_delivery_knows_of_are_not_sent() -> None:
    place = Place()
    place.lost = 1
    sink = opened(place)
    sink.offer(ended())
    await until(lambda: sink.state().lost["refused"] == 1)
    assert sink.state().sent == 0
    await sink.close()


@looped
async def test_batches_wait_for_others_but_not_for_ever() -> None:
    place = Place(most=5, linger=1.0)
    sink = opened(place)
    for number in range(7):
        sink.offer(ended(id=number))
        await asyncio.sleep(0)
    await until(lambda: len(ids(place)) == 7)
    assert place.batches == [[0, 1, 2, 3, 4], [5, 6]]
    await sink.close()


@looped
async def test_at_the_end_what_waits_is_delivered_at_once() -> None:
    place = Place(most=100, linger=60.0)
    sink = opened(place)
    sink.offer(ended(id=1))
    await asyncio.sleep(0.01)
    assert place.batches == []
    state = await sink.close()
    assert place.batches == [[1]]
    assert (state.sent, state.lost["unsent"]) == (1, 0)
    sink.offer(ended(id=2))
    assert sink.state().lost["full"] == 1


@pytest.mark.parametrize("how", ["gone", "stuck"])
def test_what_nobody_takes_in_the_end_is_counted(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "CLOSING", 0.2)

    @looped
    async def run() -> None:
        place = Place()
        if how == "gone":
            place.error = Unreachable("gone")
        else:
            place.stuck.clear()
        sink = opened(place)
        for number in range(12):
            sink.offer(ended(id=number))
        await until(lambda: place.attempts)
        state = await sink.close()
        assert (state.sent, state.lost["unsent"], state.waiting) == (0, 12, 0)

    run()


@looped
async def test_what_may_not_have_arrived_is_looked_after_while_nothing_else_comes() -> None:
    place = Place()
    sink = opened(place)
    place.unsettled = True
    sink.offer(ended(id=1))
    await until(lambda: len(place.batches) >= 3)
    assert place.batches[:3] == [[1], [], []]
    place.unsettled = False
    sink.offer(ended(id=2))
    await until(lambda: ids(place) == [1, 2])
    assert sink.state().sent == 2
    place.missing = 1
    state = await sink.close()
    assert (state.sent, state.lost["unsent"]) == (1, 1)
