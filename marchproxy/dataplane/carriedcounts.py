"""Counters of what is carried, for scrapes: they never go back, and cost little however many flows there are.

Tiers know what has ended and what live flows have carried so far. Both together may fall short for a moment,
and never go beyond: a flow that ends is told of after it has left the table, and of what lives is asked last.
So the largest sum that was seen is the counter.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from marchproxy.dataplane.allowance import ALLOWANCE, LONGEST, Allowance
from marchproxy.dataplane.carried import Carried
from marchproxy.dataplane.tasks import Tasks

log = logging.getLogger(__name__)

PATIENCE = 0.25
"""Seconds that a scrape waits for a walk over the flows; it then gets what was found by the one before."""
SHARE = 0.05
"""Of one processor: what walks for scrapes may cost. They go on for ever, unlike those for who looks."""
CHEAP = 0.02
"""Seconds of a processor that a walk may take without being kept."""


class Facts(Protocol):
    """Where the numbers come from."""

    async def count_carried(self) -> None:
        """Count from now on."""

    async def carried(self) -> Mapping[str, Carried]:
        """What was carried since then, by tier: never more, and a little less while something ends."""


class CarriedCounts:
    """The counters. Nothing is counted before `begin`."""

    def __init__(self, facts: Facts, allowance: Allowance = ALLOWANCE) -> None:
        self._facts = facts
        self._allowance = allowance
        self._tasks = Tasks()
        self._counting = False
        self._work: asyncio.Task[None] | None = None
        self._next = 0.0
        """When flows are walked over again, by the loop's clock."""
        self._seen: dict[str, Carried] = {}

    async def begin(self) -> None:
        """Count from now on, but for flows that are there already; see `look`."""
        await self._facts.count_carried()
        self._counting = True

    def look(self) -> asyncio.Task[None]:
        """Find out what was carried, in the background. The first time, flows that were there before are
        counted from then on.
        """
        if self._work is None or self._work.done():
            self._work = self._tasks.start(self._look(), name="what is carried")
        return self._work

    async def read(self) -> Mapping[str, Carried]:
        """By tier. Up to date where a walk is cheap, else up to two minutes old."""
        if self._counting and asyncio.get_running_loop().time() >= self._next:
            await asyncio.wait({self.look()}, timeout=PATIENCE)
        return self._seen

    async def close(self) -> None:
        """Count no more."""
        await self._tasks.stop()

    async def _look(self) -> None:
        found = await self._facts.carried()
        for tier, carried in found.items():
            self._seen.setdefault(tier, Carried()).reach(carried)
        cost = sum(carried.cost for carried in found.values())
        if cost > CHEAP:
            pause = min(max(cost / SHARE, self._allowance.pause(cost)), LONGEST)
            self._next = asyncio.get_running_loop().time() + pause
