"""outbox: what a slow reader misses is counted, where it is missing."""

from marchproxy.dataplane.outbox import QUEUE, Lost, Outbox
from tests.dataplane.loops import looped


@looped
async def test_what_waits_comes_at_once_and_in_order() -> None:
    box = Outbox[int]()
    for number in range(3):
        box.put(number)
    batches = box.batches()
    assert await anext(batches) == [0, 1, 2]
    box.put(3)
    assert await anext(batches) == [3]


@looped
async def test_the_newest_are_lost_and_counted() -> None:
    box = Outbox[int]()
    for number in range(QUEUE + 7):
        box.put(number)
    batches = box.batches()
    assert await anext(batches) == [*range(QUEUE), Lost(7)]
    box.put(-1)
    assert await anext(batches) == [-1]
