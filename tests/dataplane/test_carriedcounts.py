"""Counters of what is carried: they never go back, and no scrape waits for a long walk."""

import asyncio
from collections.abc import Mapping

import pytest

from marchproxy.dataplane import carriedcounts
from marchproxy.dataplane.allowance import LONGEST, Allowance
from marchproxy.dataplane.carried import Carried, Load
from marchproxy.dataplane.carriedcounts import CarriedCounts
from tests.dataplane.loops import looped


class Known:
    """`Facts` that are invented: what has ended, and what lives, of one mapping in the kernel."""

    def __init__(self) -> None:
        self.ended = self.live = 0
        self.cost = 0.0
        self.walks = self.begun = 0
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def count_carried(self) -> None:
        self.begun += 1

    async def carried(self) -> Mapping[str, Carried]:
        self.walks += 1
        await self.goes_on.wait()
        made = Carried(cost=self.cost)
        made.take("c/m", "", "", Load(1, self.ended + self.live))
        return {"kernel": made}


async def packets(counts: CarriedCounts) -> int | None:
    found = await counts.read()
    return found["kernel"].mappings["c/m"].sent_packets if found else None


@looped
async def test_nothing_is_counted_before_it_begins() -> None:
    known = Known()
    counts = CarriedCounts(known)
    assert await counts.read() == {}
    assert (known.begun, known.walks) == (0, 0)
    await counts.begin()
    assert await packets(counts) == 0
    assert (known.begun, known.walks) == (1, 1)
    await counts.close()


@looped
async def test_a_flow_that_ends_counts_once_whenever_its_end_is_told() -> None:
    known = Known()
    counts = CarriedCounts(known)
    await counts.begin()
    seen = []
    # It lives and grows, has left the table, is told of, and another one begins.
    for known.ended, known.live in ((0, 10), (0, 25), (0, 0), (30, 0), (30, 4)):
        seen.append(await packets(counts))
    assert seen == [10, 25, 25, 30, 34]
    await counts.close()


@looped
async def test_a_scrape_waits_a_moment_and_the_next_has_what_was_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(carriedcounts, "PATIENCE", 0.001)
    known = Known()
    counts = CarriedCounts(known)
    known.goes_on.clear()
    await counts.begin()
    counts.look()
    assert await packets(counts) is None
    assert known.walks == 1, "which had begun already"
    known.goes_on.set()
    while await packets(counts) is None:
        pass
    known.live = 7
    known.goes_on.clear()
    assert [await packets(counts) for _ in range(3)] == [0, 0, 0]
    walks = known.walks
    known.goes_on.set()
    while await packets(counts) != 7:
        pass
    assert known.walks <= walks + 1, "one walk at a time"
    await counts.close()


class Machine(Allowance):
    """Where each walk is to be used for so many seconds."""

    def __init__(self, pause: float) -> None:
        super().__init__(lambda: None)
        self._pause = pause

    def pause(self, cost: float) -> float:
        return self._pause


@pytest.mark.parametrize(("pause", "expected"), [(2, 10), (50, 50), (3600, LONGEST)])
@looped
async def test_what_is_dear_is_kept_and_longer_where_nothing_is_idle(pause: float, expected: float) -> None:
    known = Known()
    counts = CarriedCounts(known, Machine(pause))
    await counts.begin()
    known.cost = 0.5
    before = asyncio.get_running_loop().time()
    await counts.read()
    assert before + expected <= counts._next <= asyncio.get_running_loop().time() + expected
    known.live = 7
    assert (await packets(counts), known.walks) == (0, 1)
    counts._next = before
    assert (await packets(counts), known.walks) == (7, 2)
    await counts.close()


@looped
async def test_a_walk_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    known = Known()
    counts = CarriedCounts(known)
    await counts.begin()
    fails, known.carried = known.carried, fail  # type: ignore[method-assign]
    assert await counts.read() == {}
    await asyncio.sleep(0)
    assert "what is carried failed: OSError: no" in caplog.text
    known.carried, known.live = fails, 3  # type: ignore[method-assign]
    assert await packets(counts) == 3
    await counts.close()


async def fail() -> Mapping[str, Carried]:
    raise OSError("no")
