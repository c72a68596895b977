"""The tier in the supervisor's hands: one call at a time, its events, and whether it is alive."""

import asyncio
import logging
from collections.abc import Iterable, Sequence

from marchproxy.dataplane.choice import left_in_kernel
from marchproxy.dataplane.events import EventHub, Inbox, Subscription
from marchproxy.dataplane.naming import ServiceNames
from marchproxy.dataplane.records import EventKind, Flow
from marchproxy.dataplane.status import Problem
from marchproxy.dataplane.tasks import Tasks
from marchproxy.dataplane.tier import Tier
from marchproxy.model.address import IPAddress
from marchproxy.model.errors import Conflict, MarchproxyError
from marchproxy.policy.plan import Plan

log = logging.getLogger(__name__)


class TierKeeper:
    """Keeps what `Tier` is promised: one call at a time, but for questions while it drains."""

    def __init__(self, tier: Tier, reason: str) -> None:
        self.tier = tier
        self.reason = reason
        """Why this tier and not the other."""
        self.events = EventHub()
        self._failure = ""
        self._draining = False
        self._inbox = Inbox(self.events.publish)
        self._lock = asyncio.Lock()
        self._tasks = Tasks()

    @property
    def alive(self) -> bool:
        """Whether the last poll did its work."""
        return not self._failure

    async def start(self) -> None:
        """Start the tier. Raises `MarchproxyError`."""
        await self.tier.start(self._inbox.put)
        await self._want()

    async def apply(self, plan: Plan, revision: int) -> None:
        """Carry out `plan`. Raises and leaves what was there; `Conflict` once it drains."""
        async with self._lock:
            if self._draining:
                raise Conflict("the daemon is stopping", hint="it takes this over when it starts again")
            await self.tier.apply(plan, revision)
        self.events.names = ServiceNames(plan)

    async def poll(self) -> None:
        """Let the tier do what is due; a failure is a problem until the next poll without one."""
        try:
            async with self._lock:
                await self.tier.poll()
        except Exception as error:
            what = error.message if isinstance(error, MarchproxyError) else f"{type(error).__name__}: {error}"
            log.debug("poll", exc_info=True)
            self._failure = what
        else:
            self._failure = ""

    async def flows(self, limit: int) -> Sequence[Flow]:
        """Live flows, at most `limit`."""
        async with self._lock:
            return await self.tier.flows(limit)

    async def in_use(self, addresses: frozenset[IPAddress]) -> frozenset[IPAddress]:
        """Those of `addresses` that are on either side of some live flow."""
        async with self._lock:
            return await self.tier.in_use(addresses)

    async def subscribe(self, kinds: Iterable[EventKind]) -> Subscription:
        """Events of these kinds, none missed from the return on."""
        subscription = self.events.subscribe(kinds)
        await self._want()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscriber; the tier learns soon that it may save itself the work."""
        self.events.unsubscribe(subscription)
        self._tasks.start(self._want(), name="events")

    def lost_events(self) -> int:
        """Events that nobody was told."""
        return self.tier.lost_events() + self._inbox.lost

    def problems(self) -> Sequence[Problem]:
        """What is wrong with the tier."""
        found = [*self.tier.problems(), self._failure]
        if self.tier.name != "kernel":
            found.append(left_in_kernel())
        return [Problem("tier", message) for message in found if message]

    async def drain(self, seconds: float) -> None:
        """Let what user space holds finish. Facts may be asked for meanwhile: it can take minutes."""
        async with self._lock:
            self._draining = True
        await self.tier.drain(seconds)

    async def close(self) -> None:
        """Let go of the tier."""
        await self._tasks.stop()
        await self.tier.close()

    async def _want(self) -> None:
        async with self._lock:
            await self.tier.want(self.events.wanted)
