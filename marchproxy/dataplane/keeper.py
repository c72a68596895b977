"""The tier in the supervisor's hands, and admission beside it: one call at a time, their events, whether they
are alive.

What is asked of both is answered for both: a tunnel is a flow, and a refusal is one, whoever had it.
"""

import asyncio
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from marchproxy.dataplane.admission.service import Admission
from marchproxy.dataplane.agreement import Explanation, KernelAnswer, agrees
from marchproxy.dataplane.capture.packet import Feed
from marchproxy.dataplane.capture.wish import Wish
from marchproxy.dataplane.carried import Carried
from marchproxy.dataplane.choice import left_in_kernel
from marchproxy.dataplane.events import EventHub, Inbox, Listener, Subscription
from marchproxy.dataplane.flowquery import (
    EVERYTHING,
    FlowFilter,
    FlowPage,
    FlowQuestion,
    before,
    join,
    page_of,
)
from marchproxy.dataplane.flowtotals import FlowTotals, Grouping
from marchproxy.dataplane.naming import ServiceNames
from marchproxy.dataplane.records import Decision, Denials, EventKind, Flow, LimitState, TableFill, Traffic
from marchproxy.dataplane.status import Problem
from marchproxy.dataplane.tasks import Tasks
from marchproxy.dataplane.tier import Tier
from marchproxy.dataplane.workers.pool import WorkerPool
from marchproxy.model.address import IPAddress
from marchproxy.model.errors import Conflict, MarchproxyError
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Query
from marchproxy.policy.plan import Plan
from marchproxy.policy.why import why

log = logging.getLogger(__name__)


class TierKeeper:
    """Keeps what `Tier` is promised: one call at a time, but for questions while it drains."""

    def __init__(self, tier: Tier, reason: str, admission: Admission | WorkerPool) -> None:
        self.tier = tier
        self.admission = admission
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
        self.admission.start(self._inbox.put)
        await self._want()

    async def apply(self, plan: Plan, revision: int) -> None:
        """Carry out `plan`. Raises and leaves what was there; `Conflict` once it drains."""
        async with self._lock:
            if self._draining:
                raise Conflict("the daemon is stopping", hint="it takes this over when it starts again")
            prepared = self.admission.prepare(plan)
            try:
                await self.tier.apply(plan, revision)
            except BaseException:
                prepared.abandon()
                raise
            prepared.commit(revision)
        self.events.names = ServiceNames(plan)

    async def poll(self) -> None:
        """Let the tier do what is due; a failure is a problem until the next poll without one."""
        try:
            async with self._lock:
                await self.tier.poll()
                self.admission.poll()
        except Exception as error:
            what = error.message if isinstance(error, MarchproxyError) else f"{type(error).__name__}: {error}"
            log.debug("poll", exc_info=True)
            self._failure = what
        else:
            self._failure = ""

    async def flows(self, limit: int) -> Sequence[Flow]:
        """Live flows, at most `limit`."""
        async with self._lock:
            carried = await self.tier.flows(limit)
        return [*carried, *await self.admission.flows(limit - len(carried))]

    async def page(self, question: FlowQuestion) -> FlowPage:
        """Live flows as asked for, of all of them."""
        names = self.events.names
        own = page_of(await self._admitted(names), replace(question, first=0, count=sys.maxsize)).flows
        return join(question, await self.tier.page(before(question, len(own)), names), own)

    async def totals(self, by: Grouping) -> FlowTotals:
        """All live flows added up. What has ended before is told before this returns, as far as it may be."""
        await self.poll()
        names = self.events.names
        found = await self.tier.totals(by, names)
        found.add(FlowTotals.of(await self._admitted(names), by))
        return found

    async def count_carried(self) -> None:
        """See `Tier.count`."""
        await self.tier.count(lambda: self.events.names)

    async def carried(self) -> Mapping[str, Carried]:
        """See `Tier.carried`, by who carried: `kernel` or `sockets`, admission among these."""
        await self.poll()
        own = (await self.admission.carried()).copy()
        found = await self.tier.carried(self.events.names)
        if self.tier.name != "sockets":
            return {self.tier.name: found, "sockets": own}
        own.add(found)
        return {"sockets": own}

    async def _admitted(self, names: ServiceNames) -> Sequence[Flow]:
        return [names.complete_flow(flow) for flow in await self.admission.flows(sys.maxsize)]

    async def explain(self, query: Query) -> Explanation:
        """What policy says about a new flow, and what the programs in the kernel do."""
        # Between a plan in force and its names nobody else gets the lock.
        async with self._lock:
            evaluator = self.events.names.evaluator
            try:
                kernel = await self.tier.rehearse(query)
            except (MarchproxyError, OSError) as error:
                kernel = f"the kernel could not be asked: {error}"
        answer = evaluator.evaluate(query)
        agreed = agrees(evaluator.plan, answer, kernel) if isinstance(kernel, KernelAnswer) else None
        if agreed is False:
            log.error("the kernel and the policy differ about %s: %s, and %s", query, kernel, answer)
        return Explanation(answer, why(evaluator, query), kernel, agreed)

    async def in_use(self, addresses: frozenset[IPAddress]) -> frozenset[IPAddress]:
        """Those of `addresses` that are on either side of some live flow."""
        async with self._lock:
            carried = await self.tier.in_use(addresses)
        return carried | await self.admission.in_use(addresses)

    def counters(self) -> Mapping[Reason, Traffic]:
        """Packets and bytes by reason."""
        found = dict(self.tier.counters())
        for reason, traffic in self.admission.counters().items():
            found[reason] = found.get(reason, Traffic()) + traffic
        return found

    def denials(self) -> Sequence[Denials]:
        """What was refused, and let through by audit, by reason and mapping."""
        found: dict[tuple[Reason, str, bool], Denials] = {}
        for item in (*self.tier.denials(), *self.admission.denials()):
            key = item.reason, item.mapping, item.audited
            held = found.get(key)
            found[key] = replace(item, traffic=item.traffic + held.traffic) if held else item
        return list(found.values())

    async def catch_up(self) -> None:
        """Returns when what the tier has refused before is told, as far as it may be."""
        await self.poll()
        # See `settle`.
        await asyncio.sleep(0)

    async def untold(self) -> Sequence[Decision]:
        """What was refused and is told with the client's next attempt, with services and names."""
        async with self._lock:
            found = await self.tier.untold()
        return [self.events.completed(decision) for decision in found]

    def limits(self) -> Sequence[LimitState]:
        """What each limit of the plan has let through and dropped."""
        own = {state.name: state for state in self.admission.limit_states()}
        return [_together(state, own.get(state.name)) for state in self.tier.limits()]

    def fill(self) -> Sequence[TableFill]:
        """How full the tables are."""
        return [*self.tier.fill(), *self.admission.fill()]

    async def cut(self, ids: frozenset[int]) -> frozenset[int]:
        """End flows by their ids; those that were there."""
        async with self._lock:
            carried = await self.tier.cut(ids)
        return carried | await self.admission.cut(ids)

    async def capture(self, wish: Wish) -> Feed:
        """Begin to capture packets; `close` of the feed must follow. Raises `MarchproxyError`."""
        async with self._lock:
            return await self.tier.capture(wish)

    async def inform(self) -> None:
        """Returns when all of admission decides by the plan and the credentials of now."""
        await self.admission.inform()

    async def settle(self) -> None:
        """Returns when what admission knows by now has been told; see `Admission.settle`."""
        await self.admission.settle()
        # What waits in the inbox is passed on by the loop's next turn.
        await asyncio.sleep(0)

    async def revoke(self, token: str) -> int:
        """End what this credential has opened; how many."""
        return await self.admission.revoke(token)

    async def subscribe(self, kinds: Iterable[EventKind], wanted: FlowFilter = EVERYTHING) -> Subscription:
        """Events of these kinds that `wanted` holds for, none missed from the return on."""
        subscription = self.events.subscribe(kinds, wanted)
        await self._want()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscriber; the tier learns soon that it may save itself the work."""
        self.events.unsubscribe(subscription)
        self._tasks.start(self._want(), name="events")

    async def listen(self, kinds: frozenset[EventKind], told: Listener) -> None:
        """Have `told` called for each event of these kinds, none missed from the return on."""
        self.events.listen(kinds, told)
        await self._want()

    def unlisten(self, told: Listener) -> None:
        """No longer."""
        self.events.unlisten(told)
        self._tasks.start(self._want(), name="events")

    def lost_events(self) -> int:
        """Events that nobody was told."""
        return self.tier.lost_events() + self._inbox.lost

    def problems(self) -> Sequence[Problem]:
        """What is wrong with the tier."""
        found = [*self.tier.problems(), self._failure]
        if self.tier.name != "kernel":
            found.append(left_in_kernel())
        problems = [Problem("tier", message) for message in found if message]
        return [*problems, *(Problem("admission", message) for message in self.admission.problems())]

    async def drain(self, seconds: float) -> None:
        """Let what user space holds finish. Facts may be asked for meanwhile: it can take minutes."""
        async with self._lock:
            self._draining = True
        await asyncio.gather(self.tier.drain(seconds), self.admission.drain(seconds))

    async def close(self) -> None:
        """Let go of the tier."""
        await self._tasks.stop()
        await self.admission.close()
        await self.tier.close()

    async def _want(self) -> None:
        async with self._lock:
            self.admission.want(self.events.wanted)
            await self.tier.want(self.events.wanted)


def _together(one: LimitState, other: LimitState | None) -> LimitState:
    if other is None:
        return one
    return LimitState(one.name, one.passed + other.passed, one.dropped + other.dropped)
