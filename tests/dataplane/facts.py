"""Invented facts: decisions, flows, events, and a daemon that knows them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address

from marchproxy.dataplane.agreement import Explanation, KernelAnswer, agrees
from marchproxy.dataplane.capture.packet import CapturedPacket, Feed
from marchproxy.dataplane.capture.wish import Wish
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.events import EventHub, OwnEvent, Subscription
from marchproxy.dataplane.flowquery import FlowFilter, FlowPage, FlowQuestion, page_of
from marchproxy.dataplane.learning import Learning
from marchproxy.dataplane.logring import LogRing
from marchproxy.dataplane.preview import Cut, Preview
from marchproxy.dataplane.records import (
    BackendEvent,
    BackendState,
    Decision,
    Event,
    EventKind,
    Flow,
    FlowState,
    InterfaceEvent,
    InterfaceState,
    LimitState,
    ProblemEvent,
    ReloadEvent,
    TableFill,
    Traffic,
)
from marchproxy.dataplane.status import AddressState, Applied, NameState, Problem, Status
from marchproxy.dataplane.toplists import TopList, TopOrder, TopQuestion, TopRow
from marchproxy.model.change import Change
from marchproxy.model.entities import Role
from marchproxy.model.errors import MarchproxyError
from marchproxy.model.reason import Reason, Tier, Verdict
from marchproxy.policy.evaluate import Query
from marchproxy.policy.plan import Finding, Severity
from marchproxy.policy.why import why

NOON = 1_800_000_000.25


def decision(source: str = "10.0.0.1", reason: Reason = Reason.FORWARDED, **fields: object) -> Decision:
    made = Decision(
        time=NOON,
        id=7,
        source=ip_address(source),
        source_port=50_000,
        destination=ip_address("10.0.0.9"),
        destination_port=443,
        protocol="tcp",
        tier=Tier.TC,
        verdict=Verdict.ALLOW if reason is Reason.FORWARDED else Verdict.DENY,
        reason=reason,
        mapping="m",
        revision=3,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def flow(made: Decision | None = None) -> Flow:
    return Flow(
        decision=made or decision(),
        backend=ip_address("10.9.0.1"),
        backend_port=8443,
        state=FlowState.ESTABLISHED,
        started=NOON,
        last_seen=NOON + 1,
        sent=Traffic(2, 300),
        received=Traffic(4, 5000),
    )


def denied(source: str = "10.0.0.1", reason: Reason = Reason.NO_MAPPING) -> Event:
    return Event(EventKind.DENIED, decision(source, reason, mapping=""))


def started() -> Event:
    return Event(EventKind.FLOW_START, decision(), flow())


def backend_state() -> BackendState:
    return BackendState(
        service="web",
        address=ip_address("10.9.0.1"),
        port=8443,
        check="http",
        up=False,
        checked=True,
        drained=False,
        since=NOON,
        why="HTTP 503",
    )


def own_events() -> Sequence[OwnEvent]:
    """One of each kind that the daemon finds out itself."""
    return (
        ProblemEvent(NOON, "health", "all backends of web are down", over=False),
        ReloadEvent(NOON, 4, "cd" * 32, 0.0021, ""),
        InterfaceEvent(NOON, InterfaceState("eth0", Role.INSIDE, "auto", "tc")),
        BackendEvent(backend_state()),
    )


def status(*problems: Problem) -> Status:
    return Status(
        version="0.1.0",
        pid=42,
        started=NOON - 60,
        now=NOON,
        applied=Applied(3, "ab" * 32, NOON - 30, 0.0125),
        tier="kernel",
        tier_reason="BPF is permitted",
        interfaces=(InterfaceState("eth0", Role.INSIDE, "auto", "tc"),),
        counters={Reason.FORWARDED: Traffic(10, 1000), Reason.NO_MAPPING: Traffic(0, 0)},
        limits=(LimitState("all", Traffic(1, 20), Traffic(3, 40)),),
        tables=(TableFill("flows", 5, 100),),
        lost_events=2,
        reloads=4,
        failed_reloads=1,
        names=(
            NameState(
                "db.example.com",
                "failing",
                (
                    AddressState(ip_address("192.0.2.1"), True, None),
                    AddressState(ip_address("2001:db8::1"), False, 61.5),
                ),
                error="the resolver does not answer",
                since=NOON - 10,
                ttl=300,
                refused={ip_address("10.0.0.1"): "a private address"},
            ),
        ),
        problems=problems,
    )


class StandInFeed:
    """Captured packets that were put there before; then none."""

    def __init__(self, *packets: CapturedPacket) -> None:
        self.packets = list(packets)
        self.missed = 0
        self.closed = False

    async def read(self) -> Sequence[CapturedPacket]:
        found, self.packets = self.packets, []
        return found

    async def close(self) -> None:
        self.closed = True


class StandIn:
    """An `Appliance` that needs no daemon."""

    def __init__(self, *flows: Flow) -> None:
        self.events = EventHub()
        self.learning = Learning(None)
        self.logs = LogRing()
        self.held = flows
        self.kernel: KernelAnswer | str = "there is none"
        self.tokens: dict[str, Verified] = {}
        self.feed = StandInFeed()
        self.questions: list[FlowQuestion] = []
        self.tops: list[tuple[TopQuestion, TopOrder, int]] = []
        self.refusal: MarchproxyError | None = None
        self.proposed: tuple[str, Sequence[Change]] | None = None
        self.ended: tuple[frozenset[int], frozenset[str]] = (frozenset(), frozenset())
        self.settled = 0

    async def settle(self) -> None:
        self.settled += 1

    def status(self) -> Status:
        return status()

    def findings(self) -> Sequence[Finding]:
        return [Finding(Severity.WARNING, "mapping m", "never matches", "remove it")]

    async def page(self, question: FlowQuestion) -> FlowPage:
        self.questions.append(question)
        return page_of(map(self.events.names.complete_flow, self.held), question)

    async def top(self, of: TopQuestion, order: TopOrder, limit: int) -> TopList:
        self.tops.append((of, order, limit))
        row = TopRow("web", "m" if of.by == "reason" else "", 2, 30, 400, 1.5, 20.0)
        return TopList(of, [row], 3, 2.0)

    async def explain(self, query: Query) -> Explanation:
        evaluator = self.events.names.evaluator
        answer = evaluator.evaluate(query)
        agreed = None if isinstance(self.kernel, str) else agrees(evaluator.plan, answer, self.kernel)
        return Explanation(answer, why(evaluator, query), self.kernel, agreed)

    def judge(self, secret: str) -> Verified | Reason:
        return self.tokens.get(secret, Reason.AUTH_INVALID)

    async def subscribe(self, kinds: Iterable[EventKind], wanted: FlowFilter) -> Subscription:
        return self.events.subscribe(kinds, wanted)

    def unsubscribe(self, subscription: Subscription) -> None:
        self.events.unsubscribe(subscription)

    async def capture(self, wish: Wish) -> Feed:
        if self.refusal:
            raise self.refusal
        return self.feed

    async def cut(self, ids: frozenset[int], tokens: frozenset[str]) -> tuple[frozenset[int], int]:
        self.ended = (ids, tokens)
        return ids & {7}, 2 * len(tokens)

    async def preview(self, sha256: str, changes: Sequence[Change]) -> Preview:
        self.proposed = (sha256, changes)
        if self.refusal:
            raise self.refusal
        return Preview(len(self.held), True, 1, (Cut(flow(), Reason.NO_MAPPING, ""),), ("db.example.com",))

    async def reload(self) -> Applied:
        if self.refusal:
            raise self.refusal
        return Applied(4, "cd" * 32, NOON, 0.0021)
