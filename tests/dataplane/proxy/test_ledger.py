"""What the sockets tier writes down."""

import asyncio
from dataclasses import replace
from ipaddress import ip_address

from marchproxy.dataplane.carried import Load, Side
from marchproxy.dataplane.proxy.ledger import Conversation, Ledger, count
from marchproxy.dataplane.records import Denials, Event, EventKind, FlowState, Traffic
from marchproxy.model.entities import Balance
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Tier, Verdict
from tests.dataplane.loops import looped
from tests.dataplane.plans import backend, listener, plan, rule

CLIENT, HERE = ip_address("10.0.0.5"), ip_address("192.0.2.1")
WEB = backend(8080)
SOURCES = {"net": "10.0.0.0/8", "odd": "10.0.0.5/32", "shop/net": "10.0.0.0/16"}
OPEN = plan(listener(80, rule(WEB, sources=("odd",)), address="0.0.0.0"), sources=SOURCES)
CLOSED = plan(listener(80, rule(reason=Reason.DENY_MAPPING), address="0.0.0.0"), sources=SOURCES)


def ledger() -> tuple[Ledger, list[Event]]:
    events: list[Event] = []
    kept = Ledger()
    kept.sink = events.append
    kept.adopt(OPEN, 7)
    return kept, events


def begun(kept: Ledger) -> Conversation:
    query, answer = kept.decide(Transport.TCP, CLIENT, HERE, 80)
    return kept.begin(query, 50_000, answer)


def test_what_reaches_a_socket_of_ours_was_for_a_local_address() -> None:
    kept, _ = ledger()
    _, answer = kept.decide(Transport.TCP, CLIENT, HERE, 80)
    assert (answer.verdict, answer.mapping) == (Verdict.ALLOW, "m")


def test_a_conversation_is_numbered_counted_and_ended() -> None:
    kept, events = ledger()
    conversation = begun(kept)
    assert conversation.flow().state is FlowState.OPENING
    assert (conversation.flow().backend, conversation.flow().backend_port) == (HERE, 80)
    kept.opened(conversation, WEB)
    conversation.carry(conversation.sent, 100)
    conversation.carry(conversation.received, 1000)
    conversation.carry(conversation.received, 500)
    kept.ended(conversation, Reason.CLOSED)
    start, end = events
    assert (start.kind, end.kind) == (EventKind.FLOW_START, EventKind.FLOW_END)
    assert start.flow is not None
    assert end.flow is not None
    assert start.flow.state is FlowState.ESTABLISHED
    assert (end.decision.reason, end.decision.verdict) == (Reason.CLOSED, Verdict.ALLOW)
    assert (end.flow.sent, end.flow.received) == (Traffic(1, 100), Traffic(2, 1500))
    assert end.flow.decision is end.decision
    assert kept.counters() == {Reason.FORWARDED: Traffic(3, 1600)}
    assert begun(kept).number > conversation.number


def test_a_record_names_the_source_as_the_mapping_does() -> None:
    kept, events = ledger()
    kept.opened(begun(kept), WEB)
    decision = events[0].decision
    assert decision.source_service == "odd"
    assert (decision.destination_service, decision.tier, decision.revision) == (
        "web",
        Tier.SOCKETS,
        7,
    )


def test_a_refusal_is_counted_with_its_bytes_and_told() -> None:
    kept, events = ledger()
    kept.adopt(CLOSED, 8)
    query, answer = kept.decide(Transport.UDP, CLIENT, HERE, 80)
    kept.refuse(query, 50_000, answer, Reason.NO_MAPPING, 42)
    kept.drop(Reason.TOO_BIG, 9000)
    assert kept.counters() == {Reason.NO_MAPPING: Traffic(1, 42), Reason.TOO_BIG: Traffic(1, 9000)}
    (event,) = events
    assert (event.kind, event.decision.verdict) == (EventKind.DENIED, Verdict.DENY)
    assert (event.decision.id, event.decision.revision, event.decision.protocol) == (0, 8, "udp")


def test_a_new_plan_is_asked_about_old_conversations() -> None:
    kept, _ = ledger()
    conversation = begun(kept)
    assert kept.still_allowed(conversation)
    kept.adopt(CLOSED, 8)
    assert not kept.still_allowed(conversation)
    assert conversation.revision == 7


def test_what_is_carried_counts_once_however_often_somebody_asks() -> None:
    kept, _ = ledger()
    opening, conversation = begun(kept), begun(kept)
    kept.opened(conversation, WEB)
    conversation.carry(conversation.sent, 100)
    for _ in range(2):
        kept.count([opening, conversation])
        assert kept.carried.mappings == {"m": Load(1, 1, 100, 0, 0)}
    conversation.carry(conversation.received, 1000)
    kept.count([opening, conversation])
    conversation.carry(conversation.received, 400)
    conversation.state = FlowState.CLOSING
    kept.count([conversation])
    assert kept.carried.mappings == {"m": Load(1, 1, 100, 2, 1400)}
    conversation.carry(conversation.received, 100)
    kept.ended(conversation, Reason.CLOSED)
    kept.count([conversation])
    whole = Load(1, 1, 100, 3, 1500)
    assert kept.carried.mappings == {"m": whole}
    assert kept.carried.services == {("odd", Side.SOURCE): whole, ("web", Side.DESTINATION): whole}


def test_what_goes_to_the_kernel_was_carried_here_so_far() -> None:
    kept, _ = ledger()
    conversation = begun(kept)
    kept.opened(conversation, WEB)
    conversation.carry(conversation.sent, 100)
    kept.passed_on(conversation)
    assert kept.carried.mappings == {"m": Load(1, 1, 100, 0, 0)}


def test_each_service_has_what_was_carried_while_requests_went_there() -> None:
    kept, _ = ledger()
    conversation = begun(kept)
    kept.opened(conversation, WEB)
    conversation.carry(conversation.sent, 100)
    kept.moved(conversation, replace(WEB, service="canary"))
    conversation.carry(conversation.sent, 7)
    kept.ended(conversation, Reason.CLOSED)
    services = kept.carried.services
    assert services["web", Side.DESTINATION] == Load(1, 1, 100, 0, 0)
    assert services["canary", Side.DESTINATION] == Load(0, 1, 7, 0, 0)
    assert services["odd", Side.SOURCE] == kept.carried.mappings["m"] == Load(1, 2, 107, 0, 0)


@looped
async def test_others_have_turns_while_many_are_counted() -> None:
    kept, _ = ledger()
    many = [begun(kept) for _ in range(1200)]
    for conversation in many:
        kept.opened(conversation, WEB)
        conversation.carry(conversation.sent, 1)
    turns = 0

    async def wait() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    waiting = asyncio.create_task(wait())
    assert (await count(kept, many)).mappings == {"m": Load(1200, 1200, 1200, 0, 0)}
    waiting.cancel()
    assert turns >= 2


def test_kinds_that_nobody_wants_are_counted_all_the_same() -> None:
    kept, events = ledger()
    kept.wanted = frozenset()
    conversation = begun(kept)
    kept.opened(conversation, WEB)
    conversation.carry(conversation.sent, 1)
    kept.ended(conversation, Reason.RESET)
    assert events == []
    assert kept.counters()[Reason.FORWARDED] == Traffic(1, 1)


def test_what_audit_admits_is_told_and_counted_once() -> None:
    audited = replace(rule(WEB, reason=Reason.DENY_MAPPING), audit=True)
    kept, events = ledger()
    kept.adopt(plan(listener(80, audited, address="0.0.0.0"), sources=SOURCES), 8)
    conversation = begun(kept)
    kept.opened(conversation, WEB)
    told, start = events
    assert (told.kind, told.decision.verdict, told.decision.reason) == (
        *(EventKind.AUDITED, Verdict.AUDIT),
        Reason.DENY_MAPPING,
    )
    assert (told.decision.mapping, told.flow) == ("m", None)
    assert start.kind is EventKind.FLOW_START
    assert list(kept.denials()) == [Denials(Reason.DENY_MAPPING, "m", audited=True, traffic=Traffic(1, 0))]
    assert kept.still_allowed(conversation)
    kept.wanted = frozenset()
    begun(kept)
    assert len(events) == 2


def test_conversations_count_for_the_backend_they_are_with() -> None:
    kept, spare = ledger()[0], backend(8081)
    compared = replace(rule(WEB, spare), balance=Balance.LEAST_CONNECTIONS)
    kept.adopt(plan(listener(80, compared, address="0.0.0.0")), 8)

    def chosen() -> int:
        """How many of 100 new conversations would try the first backend first."""
        query, answer = kept.decide(Transport.TCP, CLIENT, HERE, 80)
        new = (kept.begin(query, port, answer) for port in range(40_000, 40_100))
        return sum(next(kept.candidates(each)) == WEB for each in new)

    even = chosen()
    conversation = begun(kept)
    kept.opened(conversation, WEB)
    with_first = chosen()
    kept.moved(conversation, spare)
    with_other = chosen()
    kept.ended(conversation, Reason.CLOSED)
    assert with_first < 40 < even < 60 < with_other
    assert chosen() == even


def test_what_is_refused_has_no_candidates() -> None:
    kept, _ = ledger()
    conversation = begun(kept)
    assert list(kept.candidates(conversation)) == [WEB]
    kept.adopt(CLOSED, 8)
    assert list(kept.candidates(begun(kept))) == []
