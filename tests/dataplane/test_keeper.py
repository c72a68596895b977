"""A tier kept to one call at a time, and its failures made visible."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from marchproxy.dataplane.admission.service import Admission
from marchproxy.dataplane.agreement import KernelAnswer
from marchproxy.dataplane.capture.packet import Feed
from marchproxy.dataplane.capture.wish import Wish
from marchproxy.dataplane.carried import Carried, Load
from marchproxy.dataplane.credentials.book import CredentialBook
from marchproxy.dataplane.flowquery import (
    FlowFilter,
    FlowOrder,
    FlowPage,
    FlowQuestion,
    SortKey,
    page_of,
)
from marchproxy.dataplane.flowtotals import FlowTotals, Grouping, Sum
from marchproxy.dataplane.keeper import TierKeeper
from marchproxy.dataplane.names.found import Failure, Found, LookupFailed
from marchproxy.dataplane.naming import ServiceNames
from marchproxy.dataplane.records import (
    BackendLoad,
    Decision,
    Denials,
    EventKind,
    EventSink,
    Flow,
    InterfaceState,
    LimitState,
    TableFill,
    Traffic,
)
from marchproxy.model.address import IPAddress
from marchproxy.model.errors import Conflict, MarchproxyError
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Query
from marchproxy.policy.plan import Plan
from tests.dataplane import facts
from tests.dataplane.loops import PATIENCE, looped, until


def admission() -> Admission:
    return Admission(nowhere, Nobody())


class Nobody:
    """No credential opens anything."""

    book = CredentialBook()

    def note_use(self, token: str, now: datetime) -> None:
        raise AssertionError(token)


async def nowhere(name: str) -> Found:
    raise LookupFailed(Failure.NXDOMAIN)


class Touchy:
    """A tier that notices when two of its methods run at once."""

    name = "kernel"

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.wanted: list[frozenset[EventKind]] = []
        self.failure: Exception | None = None
        self.rehearsed: KernelAnswer | str = "nobody knows"
        self.sink: EventSink | None = None
        self.services: Callable[[], ServiceNames] | None = None
        self.drained = asyncio.Event()
        self.drained.set()

    async def _work(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0.001)
        self.inside -= 1

    async def start(self, sink: EventSink) -> None:
        self.sink = sink

    async def apply(self, plan: Plan, revision: int) -> None:
        await self._work()
        if self.failure:
            raise self.failure

    async def capture(self, wish: Wish) -> Feed:
        await self._work()
        raise Conflict("somebody else captures")

    async def cut(self, ids: frozenset[int]) -> frozenset[int]:
        await self._work()
        return ids & {7}

    async def poll(self) -> None:
        await self._work()
        if self.failure:
            raise self.failure

    async def want(self, kinds: frozenset[EventKind]) -> None:
        await self._work()
        self.wanted.append(kinds)

    async def flows(self, limit: int) -> Sequence[Flow]:
        await self._work()
        return [facts.flow()][:limit]

    async def page(self, question: FlowQuestion, services: ServiceNames) -> FlowPage:
        return page_of([services.complete_flow(facts.flow())], question)

    async def totals(self, by: Grouping, services: ServiceNames) -> FlowTotals:
        return FlowTotals.of([services.complete_flow(facts.flow())], by)

    async def count(self, services: Callable[[], ServiceNames]) -> None:
        self.services = services

    async def carried(self, services: ServiceNames) -> Carried:
        made = Carried()
        made.take("default/m", "", "", Load(1, 2, 3, 4, 5))
        return made

    async def rehearse(self, query: Query) -> KernelAnswer | str:
        await self._work()
        if self.failure:
            raise self.failure
        return self.rehearsed

    async def in_use(self, addresses: frozenset[IPAddress]) -> frozenset[IPAddress]:
        await self._work()
        return addresses

    def counters(self) -> Mapping[Reason, Traffic]:
        return {}

    def denials(self) -> Sequence[Denials]:
        return []

    async def untold(self) -> Sequence[Decision]:
        await self._work()
        return [facts.denied("10.0.0.7").decision]

    def limits(self) -> Sequence[LimitState]:
        return []

    def loads(self) -> Sequence[BackendLoad]:
        return []

    def interfaces(self) -> Sequence[InterfaceState]:
        return []

    def fill(self) -> Sequence[TableFill]:
        return []

    def lost_events(self) -> int:
        return 5

    def problems(self) -> Sequence[str]:
        return ["eth0: gone"]

    async def drain(self, seconds: float) -> None:
        await self.drained.wait()
        await self._work()

    async def close(self) -> None:
        await self._work()


@looped
async def test_calls_never_overlap() -> None:
    tier = Touchy()
    keeper = TierKeeper(tier, "", admission())
    await keeper.start()
    subscription, *_ = await asyncio.gather(
        keeper.subscribe(EventKind),
        keeper.poll(),
        keeper.apply(Plan(), 1),
        keeper.flows(1),
        keeper.poll(),
        keeper.drain(0),
    )
    keeper.unsubscribe(subscription)
    await keeper.flows(1)
    await keeper.close()
    assert tier.most == 1


@looped
async def test_while_it_drains_it_answers_questions_and_takes_no_plan() -> None:
    tier = Touchy()
    keeper = TierKeeper(tier, "", admission())
    tier.drained.clear()
    draining = asyncio.create_task(keeper.drain(60))
    async with asyncio.timeout(PATIENCE):
        assert await keeper.flows(1) == [facts.flow()]
        await asyncio.sleep(0)
        with pytest.raises(Conflict, match="stopping"):
            await keeper.apply(Plan(), 1)
    assert not draining.done()
    tier.drained.set()
    await draining
    await keeper.close()


@looped
async def test_the_tier_learns_which_events_are_looked_at() -> None:
    tier = Touchy()
    keeper = TierKeeper(tier, "", admission())
    await keeper.start()
    subscription = await keeper.subscribe([EventKind.FLOW_END])
    keeper.unsubscribe(subscription)
    await until(lambda: len(tier.wanted) == 3)
    only_refusals = frozenset({EventKind.DENIED, EventKind.AUDITED})
    assert tier.wanted == [only_refusals, only_refusals | {EventKind.FLOW_END}, only_refusals]
    await keeper.close()


@looped
async def test_what_is_carried_is_told_by_who_carries_it() -> None:
    tier = Touchy()
    keeper = TierKeeper(tier, "", admission())
    await keeper.count_carried()
    assert tier.services
    assert tier.services() is keeper.events.names
    await keeper.apply(Plan(), 1)
    assert tier.services() is keeper.events.names, "those of the plan in force"
    own = (await keeper.admission.carried()).mappings
    own["default/p"] = Load(1, 10, 100, 10, 100)
    found = {tier: carried.mappings for tier, carried in (await keeper.carried()).items()}
    assert found == {"kernel": {"default/m": Load(1, 2, 3, 4, 5)}, "sockets": own}
    tier.name = "sockets"
    (both,) = (await keeper.carried()).values()
    assert both.mappings == {"default/m": Load(1, 2, 3, 4, 5), **own}
    assert own.keys() == {"default/p"}, "what admission counts is left alone"
    await keeper.close()


@looped
async def test_what_is_not_told_yet_has_its_services_and_what_is_there_is_told() -> None:
    tier = Touchy()
    keeper = TierKeeper(tier, "", admission())
    await keeper.start()
    keeper.events.service = lambda address: f"at {address}"
    (untold,) = await keeper.untold()
    assert (untold.source_service, untold.destination_service) == ("at 10.0.0.7", "at 10.0.0.9")
    assert tier.sink is not None
    tier.sink(facts.denied())
    await keeper.catch_up()
    assert len(keeper.events.refusals()) == 1
    await keeper.close()


@looped
async def test_events_reach_the_hub() -> None:
    tier = Touchy()
    keeper = TierKeeper(tier, "", admission())
    await keeper.start()
    assert tier.sink is not None
    tier.sink(facts.denied())
    await until(lambda: len(keeper.events.refusals()) == 1)
    assert keeper.lost_events() == 5
    await keeper.close()


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (MarchproxyError("a map is gone"), "a map is gone"),
        (OSError(5, "broken"), "OSError: [Errno 5] broken"),
    ],
)
@looped
async def test_a_failing_poll_is_a_problem_until_one_succeeds(failure: Exception, said: str) -> None:
    tier = Touchy()
    keeper = TierKeeper(tier, "", admission())
    tier.failure = failure
    await keeper.poll()
    problems = [str(problem) for problem in keeper.problems()]
    assert (keeper.alive, problems) == (False, ["tier: eth0: gone", f"tier: {said}"])
    tier.failure = None
    await keeper.poll()
    problems = [str(problem) for problem in keeper.problems()]
    assert (keeper.alive, problems) == (True, ["tier: eth0: gone"])


@looped
async def test_names_follow_the_plan_only_when_it_was_applied() -> None:
    tier = Touchy()
    keeper = TierKeeper(tier, "", admission())
    before = keeper.events.names
    tier.failure = MarchproxyError("no")
    with pytest.raises(MarchproxyError):
        await keeper.apply(Plan(), 1)
    assert keeper.events.names is before
    tier.failure = None
    await keeper.apply(Plan(), 1)
    assert keeper.events.names is not before


@looped
async def test_sockets_beside_programs_left_in_the_kernel_are_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from marchproxy import bpf

    monkeypatch.setenv("MARCHPROXY_BPFFS", str(tmp_path))
    links = tmp_path / f"v{bpf.ABI}" / "links"
    links.mkdir(parents=True)
    tier = Touchy()
    tier.name = "sockets"
    keeper = TierKeeper(tier, "", admission())
    assert len(keeper.problems()) == 1
    (links / "tc-eth0").write_text("")
    assert "marchproxy detach" in keeper.problems()[1].message
    tier.name = "kernel"
    assert len(keeper.problems()) == 1


@looped
async def test_addresses_in_use_are_asked_of_the_tier() -> None:
    keeper = TierKeeper(Touchy(), "", admission())
    asked = frozenset({ip_address("192.0.2.1")})
    assert await keeper.in_use(asked) == asked


@looped
async def test_flows_of_the_tier_and_of_admission_are_cut_by_their_ids() -> None:
    keeper = TierKeeper(Touchy(), "", admission())
    assert await keeper.cut(frozenset({7, 8})) == {7}
    await keeper.close()


QUERY = Query(ip_address("10.1.0.2"), ip_address("198.51.100.1"), 443, Transport.TCP)


@looped
async def test_an_explanation_compares_policy_and_kernel(caplog: pytest.LogCaptureFixture) -> None:
    tier = Touchy()
    keeper = TierKeeper(tier, "", admission())
    found = await keeper.explain(QUERY)
    assert (found.answer.reason, found.kernel, found.agrees) == (Reason.NO_MAPPING, "nobody knows", None)
    tier.rehearsed = KernelAnswer(Verdict.DENY, Reason.NO_MAPPING, "", "eth0")
    assert (await keeper.explain(QUERY)).agrees is True
    assert "differ" not in caplog.text
    tier.rehearsed = KernelAnswer(Verdict.ALLOW, Reason.FORWARDED, "m", "eth0")
    assert (await keeper.explain(QUERY)).agrees is False
    assert "the kernel and the policy differ" in caplog.text
    tier.failure = MarchproxyError("it cannot be loaded")
    assert (await keeper.explain(QUERY)).kernel == "the kernel could not be asked: it cannot be loaded"


@looped
async def test_pages_and_totals_have_flows_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    admitted = admission()

    async def flows(limit: int) -> Sequence[Flow]:
        return [facts.flow(facts.decision("10.0.0.9"))][:limit]

    monkeypatch.setattr(admitted, "flows", flows)
    keeper = TierKeeper(Touchy(), "", admitted)
    page = await keeper.page(FlowQuestion(order=FlowOrder(SortKey.SOURCE, descending=True)))
    assert (page.total, [str(flow.decision.source) for flow in page.flows]) == (2, ["10.0.0.9", "10.0.0.1"])
    only = await keeper.page(FlowQuestion(FlowFilter(source=ip_network("10.0.0.9/32")), count=1))
    assert (only.total, [str(flow.decision.source) for flow in only.flows]) == (1, ["10.0.0.9"])
    assert await keeper.totals(Grouping.MAPPING) == {"m": Sum(2, 12, 10600)}
