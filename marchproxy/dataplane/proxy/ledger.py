"""The facts of the sockets tier: counters by reason, conversations, and events about both.

A packet, here, is one read of a socket that returned bytes (or one datagram), and bytes are payload: what the
kernel made of them on the wire is not visible from a socket. A refused TCP connection counts as one packet
without bytes.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import batched

from marchproxy.dataplane.carried import Carried, Load
from marchproxy.dataplane.proxy.balance import Balancer
from marchproxy.dataplane.proxy.limits import FlowLimits
from marchproxy.dataplane.records import (
    Decision,
    Denials,
    Event,
    EventKind,
    EventSink,
    Exchanged,
    Flow,
    FlowState,
    Traffic,
)
from marchproxy.model.address import IPAddress
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Tier, Verdict
from marchproxy.policy.evaluate import Answer, Evaluator, Query
from marchproxy.policy.plan import Backend, Plan, Rule


def _numbers(processor: int) -> Iterator[int]:
    """Numbers for conversations: of the clock, as the kernel's (`flow_new_id`), and of a processor that is
    none.

    So nobody else has them, and a conversation keeps its own when the kernel takes it over.
    """
    last = 0
    while True:
        last = max(last + 64, time.monotonic_ns() >> 9 << 6 | processor)
        yield last


_REMEMBERED = 256
_AT_ONCE = 512
_LAST = 63
_numbered = _numbers(_LAST)
"""Of all ledgers of this process."""


def number_as(index: int) -> None:
    """In process `index` of several, from 0: give out numbers that none of the others does."""
    global _numbered  # noqa: PLW0603  (a fact about the process)
    _numbered = _numbers(_LAST - index)


class Tally:
    """A running count, cheap enough for every read."""

    __slots__ = ("bytes", "packets")

    def __init__(self) -> None:
        self.packets = 0
        self.bytes = 0

    def add(self, size: int) -> None:
        """Count one packet of `size` bytes."""
        self.packets += 1
        self.bytes += size

    def traffic(self) -> Traffic:
        """The count so far."""
        return Traffic(self.packets, self.bytes)


class Conversation:
    """An admitted connection or UDP session, as long as it lives."""

    __slots__ = (
        "_counted",
        "_forwarded",
        "answer",
        "backend",
        "began",
        "last_seen",
        "name",
        "number",
        "query",
        "received",
        "revision",
        "sent",
        "source_port",
        "started",
        "state",
    )

    def __init__(
        self,
        number: int,
        query: Query,
        source_port: int,
        answer: Answer,
        revision: int,
        forwarded: Tally,
        name: str = "",
    ) -> None:
        self.number = number
        self.query = query
        self.source_port = source_port
        self.answer = answer
        self.revision = revision
        self.name = name
        """The host that the client asked for; empty: it gave an address."""
        self.backend: Backend | None = None
        """None until one has answered."""
        self.state = FlowState.OPENING
        self.sent = Tally()
        """Client to backend."""
        self.received = Tally()
        self.started = time.time()
        """For records; how long ago that was, only `age` knows."""
        self.began = self.last_seen = time.monotonic()
        """On the monotonic clock: a step of the wall clock must not expire everything."""
        self._forwarded = forwarded
        self._counted: Load | None = None
        """What it had carried when it was last counted; None: it was not yet."""

    @property
    def has_grown(self) -> bool:
        """Whether there is anything to tell by `growth`."""
        counted = self._counted
        if counted is None:
            return True
        packets = counted.sent_packets + counted.received_packets
        return self.sent.packets + self.received.packets != packets

    def growth(self) -> Load:
        """What it has carried since this was last asked; once it is a flow by itself."""
        sent, received, before = self.sent, self.received, self._counted
        now = self._counted = Load(1, sent.packets, sent.bytes, received.packets, received.bytes)
        if before is None:
            return now
        grown = -before
        grown.add(now)
        return grown

    def carry(self, tally: Tally, size: int) -> None:
        """Count bytes that were read and go on to the other side; `tally` is `sent` or `received`."""
        forwarded = self._forwarded
        # As `add` does, for this comes with every read.
        tally.packets += 1
        tally.bytes += size
        forwarded.packets += 1
        forwarded.bytes += size
        self.last_seen = time.monotonic()

    def carry_both(self, sent: int, received: int) -> float:
        """Count a request and its answer, if that has a body, of so many bytes; return when."""
        ours, theirs, forwarded = self.sent, self.received, self._forwarded
        ours.packets += 1
        ours.bytes += sent
        if received:
            theirs.packets += 1
            theirs.bytes += received
            forwarded.packets += 2
        else:
            forwarded.packets += 1
        forwarded.bytes += sent + received
        self.last_seen = now = time.monotonic()
        return now

    def age(self) -> float:
        """Seconds since it was let in."""
        return time.monotonic() - self.began

    def idle(self) -> float:
        """Seconds since bytes were last carried."""
        return time.monotonic() - self.last_seen

    def flow(self, ended: Reason | None = None) -> Flow:
        """The record as it stands, or as it is told when it has `ended`. Until a backend is chosen, its place
        holds what the client asked for.
        """
        query, backend, now = self.query, self.backend, time.time()
        decision = _decision(
            *(query, self.source_port, self.answer, self.revision, self.name),
            time=self.started if ended is None else now,
            id=self.number,
            reason=ended,
            destination_service=backend.service if backend else "",
        )
        return Flow(
            decision=decision,
            backend=backend.address if backend else query.destination,
            backend_port=backend.port if backend else query.port,
            state=self.state,
            started=self.started,
            last_seen=now - self.idle(),
            sent=self.sent.traffic(),
            received=self.received.traffic(),
        )


class Ledger:
    """Decides by the plan in force and writes down what came of it."""

    def __init__(self) -> None:
        self.sink: EventSink = _nobody
        self.wanted = frozenset(EventKind)
        """Kinds of events that `sink` takes."""
        self._tallies: dict[Reason, Tally] = {}
        self._denied: dict[tuple[Reason, str], Tally] = {}
        """By reason and mapping; of mappings there are as many as an operator has made."""
        self._audited: dict[tuple[Reason, str], Tally] = {}
        """The same of what audit let through."""
        self.evaluator = Evaluator(Plan())
        """The plan in force."""
        self._blocked: dict[int, tuple[Backend, bool]] = {}
        """What the plan's blocks said about backends, by their identity; HTTP asks for each request."""
        self._balancer = Balancer()
        self.carried = Carried()
        """What conversations have carried since start; of those that live, as far as `count` was told."""
        self.limits = FlowLimits()
        self.revision = 0

    def adopt(self, plan: Plan, revision: int) -> None:
        """Decide by `plan` from now on."""
        self.evaluator = Evaluator(plan)
        self._blocked.clear()
        self.limits.adopt(plan.limits)
        self.revision = revision

    def counters(self) -> Mapping[Reason, Traffic]:
        """Everything counted since start."""
        return {reason: tally.traffic() for reason, tally in self._tallies.items()}

    def denials(self) -> Sequence[Denials]:
        """What was refused, or let through by audit, since start."""
        return [
            Denials(reason, mapping, audited=audited, traffic=tally.traffic())
            for audited, tallies in ((False, self._denied), (True, self._audited))
            for (reason, mapping), tally in tallies.items()
        ]

    def count(self, live: Iterable[Conversation]) -> None:
        """Add to `carried` what these have carried so far."""
        for conversation in live:
            if conversation.state is not FlowState.OPENING and conversation.has_grown:
                self._count(conversation)

    def decide(
        self, transport: Transport, source: IPAddress, destination: IPAddress, port: int
    ) -> tuple[Query, Answer]:
        """Ask the policy about a new flow that a socket of ours received, so its destination is local."""
        query = Query(source, destination, port, transport, local=_always)
        return query, self.evaluator.evaluate(query)

    def still_allowed(self, conversation: Conversation) -> bool:
        """Whether the plan in force would admit this conversation now. Its backend may have left the pool."""
        backend = conversation.backend
        if backend and self.is_blocked(backend):
            return False
        return self.evaluator.evaluate(conversation.query).keeps

    def reason_to_end(self, conversation: Conversation) -> Reason:
        """Why a conversation that is not allowed any more ends."""
        blocked = self.evaluator.blocked(conversation.query)
        if blocked:
            return blocked[0]
        backend = conversation.backend
        return Reason.BLOCKED_DESTINATION if backend and self.is_blocked(backend) else Reason.POLICY_CHANGED

    def is_blocked(self, backend: Backend) -> bool:
        """Whether nothing may go to a backend, whatever pool it is in."""
        known = self._blocked.get(id(backend))
        if known is None:
            if len(self._blocked) >= _REMEMBERED:
                self._blocked.clear()
            blocked = bool(self.evaluator.plan.blocks.find(backend.address))
            known = self._blocked[id(backend)] = backend, blocked
        return known[1]

    def begin(self, query: Query, source_port: int, answer: Answer, name: str = "") -> Conversation:
        """Number a conversation that was admitted; `opened` follows, or `refuse` when no backend answers.

        If audit admitted it, that is told.
        """
        if answer.verdict is Verdict.AUDIT:
            self._audited.setdefault((answer.reason, answer.mapping), Tally()).add(0)
            self._tell(EventKind.AUDITED, query, source_port, answer, name)
        forwarded = self._tally(Reason.FORWARDED)
        return Conversation(next(_numbered), query, source_port, answer, self.revision, forwarded, name)

    def candidates(self, conversation: Conversation) -> Iterator[Backend]:
        """The backends that it should try, in this order."""
        rule, pool = conversation.answer.rule, conversation.answer.pool
        if pool is None or not isinstance(rule, Rule):
            return iter(())
        return self._balancer.candidates(rule, pool, conversation.query, conversation.source_port)

    def established(self, backend: Backend) -> int:
        """Conversations with a backend."""
        return self._balancer.established(backend)

    def moved(self, conversation: Conversation, backend: Backend) -> None:
        """A conversation is with this backend from now on."""
        before = conversation.backend
        if before and before.service != backend.service and conversation.state is not FlowState.OPENING:
            # What is counted from here on is of another service.
            self._count(conversation)
        self._leave(conversation)
        conversation.backend = backend
        if conversation.answer.pool:
            self._balancer.count(backend, 1)

    def opened(self, conversation: Conversation, backend: Backend) -> None:
        """A backend has been reached."""
        self.moved(conversation, backend)
        conversation.state = FlowState.ESTABLISHED
        if EventKind.FLOW_START in self.wanted:
            flow = conversation.flow()
            self.sink(Event(EventKind.FLOW_START, flow.decision, flow))

    def passed_on(self, conversation: Conversation) -> None:
        """The kernel has an opened conversation now, and tells its end."""
        self._count(conversation)
        self._leave(conversation)
        self._tally(Reason.HANDED_OFF).add(0)

    def ended(self, conversation: Conversation, reason: Reason) -> None:
        """An opened conversation is over."""
        self._count(conversation)
        self._leave(conversation)
        conversation.state = FlowState.CLOSED
        if EventKind.FLOW_END in self.wanted:
            flow = conversation.flow(reason)
            self.sink(Event(EventKind.FLOW_END, flow.decision, flow))

    def refuse(
        self, query: Query, source_port: int, answer: Answer, reason: Reason, size: int = 0, name: str = ""
    ) -> None:
        """Count and tell a connection or datagram that goes nowhere; `size` is the datagram's."""
        self._tally(reason).add(size)
        self._denied.setdefault((reason, answer.mapping), Tally()).add(size)
        denied = replace(answer, verdict=Verdict.DENY, reason=reason)
        self._tell(EventKind.DENIED, query, source_port, denied, name)

    def exchanged(
        self, query: Query, port: int, answer: Answer, within: Conversation | None, facts: Exchanged
    ) -> None:
        """An HTTP request is over; `within` is the conversation that it counts for, if any."""
        backend = within.backend if within else None
        decision = _decision(
            *(query, port, answer, self.revision, query.host),
            time=time.time(),
            id=within.number if within else 0,
            destination_service=backend.service if backend else "",
        )
        self.sink(Event(EventKind.REQUEST, decision, exchanged=facts))

    def drop(self, reason: Reason, size: int) -> None:
        """Count a datagram of a conversation that could not be sent on."""
        self._tally(reason).add(size)

    def _tell(self, kind: EventKind, query: Query, source_port: int, answer: Answer, name: str) -> None:
        if kind in self.wanted:
            decision = _decision(query, source_port, answer, self.revision, name, time=time.time())
            self.sink(Event(kind, decision))

    def _count(self, conversation: Conversation) -> None:
        answer, backend = conversation.answer, conversation.backend
        services = _source_service(answer), backend.service if backend else ""
        self.carried.take(answer.mapping, *services, conversation.growth())

    def _leave(self, conversation: Conversation) -> None:
        if conversation.backend and conversation.answer.pool:
            self._balancer.count(conversation.backend, -1)

    def _tally(self, reason: Reason) -> Tally:
        found = self._tallies.get(reason)
        if found is None:
            found = self._tallies[reason] = Tally()
        return found


async def count(ledger: Ledger, live: Iterable[Conversation]) -> Carried:
    """What all conversations of a ledger have carried, of which `live` go on. Others have turns meanwhile."""
    for some in batched(tuple(live), _AT_ONCE):
        ledger.count(some)
        await asyncio.sleep(0)
    return ledger.carried


def _nobody(_: Event) -> None:
    """Takes events before anyone wants them."""


def _always(_: IPAddress) -> bool:
    return True


def _decision(
    query: Query,
    source_port: int,
    answer: Answer,
    revision: int,
    name: str,
    *,
    time: float,
    id: int = 0,
    reason: Reason | None = None,
    destination_service: str = "",
) -> Decision:
    """`reason`: another than the answer's."""
    return Decision(
        time=time,
        id=id,
        source=query.source,
        source_port=source_port,
        destination=query.destination,
        destination_port=query.port,
        protocol=query.protocol,
        tier=Tier.SOCKETS,
        verdict=answer.verdict,
        reason=answer.reason if reason is None else reason,
        mapping=answer.mapping,
        revision=revision,
        source_service=_source_service(answer),
        destination_service=destination_service,
        name=name,
    )


def _source_service(answer: Answer) -> str:
    services: Iterable[str] = answer.source_services
    if len(answer.source_services) > 1 and answer.rule:
        services = set(answer.rule.sources).intersection(services) or services
    return min(services, default="")
