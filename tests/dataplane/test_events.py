"""Events from a tier's thread to whoever watches."""

import asyncio
import threading
from collections import deque

from marchproxy.dataplane import events
from marchproxy.dataplane.events import RECENT_REFUSALS, EventHub, Inbox
from marchproxy.dataplane.naming import ServiceNames
from marchproxy.dataplane.outbox import QUEUE, Lost
from marchproxy.dataplane.records import BackendEvent, Decision, Event, EventKind
from marchproxy.model.reason import Reason
from tests.dataplane import facts
from tests.dataplane.loops import looped, until
from tests.dataplane.plans import backend, listener, plan, rule


@looped
async def test_refusals_are_kept_up_to_a_bound_newest_first() -> None:
    hub = EventHub()
    for number in range(RECENT_REFUSALS + 3):
        hub.publish(facts.denied(f"10.0.{number // 250}.{number % 250}"))
    kept = hub.refusals()
    assert len(kept) == RECENT_REFUSALS
    assert str(kept[0].source) == f"10.0.{RECENT_REFUSALS // 250}.2"
    assert str(kept[-1].source) == "10.0.0.3"


@looped
async def test_events_are_completed_with_the_names_of_the_plan_at_their_time() -> None:
    hub = EventHub()
    sources = {"net": "10.0.0.0/8"}
    hub.names = ServiceNames(plan(listener(1, rule(backend(8443, "10.9.0.1"))), sources=sources))
    subscription = hub.subscribe()
    hub.publish(facts.started())
    hub.names = ServiceNames(plan(sources={}))
    (event,) = await anext(subscription.batches())
    assert isinstance(event, Event)
    assert event.decision.source_service == "net"
    assert event.decision.destination_service == "web"
    assert event.flow is not None
    assert event.flow.decision is event.decision


@looped
async def test_a_subscriber_gets_its_kinds_only_until_it_leaves() -> None:
    hub = EventHub()
    subscription = hub.subscribe([EventKind.DENIED])
    hub.publish(facts.started())
    hub.publish(facts.denied())
    assert [event.kind for event in await anext(subscription.batches()) if isinstance(event, Event)] == [
        EventKind.DENIED
    ]
    hub.unsubscribe(subscription)
    hub.publish(facts.denied())
    assert not subscription._waiting


@looped
async def test_losses_are_told_where_they_happened() -> None:
    hub = EventHub()
    subscription = hub.subscribe()
    batches = subscription.batches()
    for number in range(QUEUE + 7):
        hub.publish(facts.denied(f"10.0.{number // 250}.{number % 250}"))
    first = await anext(batches)
    assert first[-1] == Lost(7)
    assert len(first) == QUEUE + 1
    hub.publish(facts.denied("10.9.9.9"))
    (after,) = await anext(batches)
    assert isinstance(after, Event)
    assert str(after.decision.source) == "10.9.9.9"


@looped
async def test_only_refusals_are_wanted_while_nobody_watches() -> None:
    hub = EventHub()
    assert hub.wanted == {EventKind.DENIED, EventKind.AUDITED}
    subscription = hub.subscribe([EventKind.FLOW_END])
    assert hub.wanted == {EventKind.DENIED, EventKind.AUDITED, EventKind.FLOW_END}
    hub.unsubscribe(subscription)
    assert hub.wanted == {EventKind.DENIED, EventKind.AUDITED}


@looped
async def test_the_inbox_takes_events_from_other_threads_in_order() -> None:
    taken: list[int] = []
    inbox = Inbox(lambda event: taken.append(event.decision.id))
    made = [Event(EventKind.DENIED, facts.decision(id=number)) for number in range(5000)]
    thread = threading.Thread(target=lambda: deque(map(inbox.put, made), maxlen=0))
    thread.start()
    await until(lambda: len(taken) == 5000)
    thread.join()
    assert taken == list(range(5000))
    assert inbox.lost == 0


@looped
async def test_a_full_inbox_counts_what_it_loses() -> None:
    taken: list[Event] = []
    inbox = Inbox(taken.append)
    for _ in range(events.INBOX + 3):
        inbox.put(facts.denied())
    assert inbox.lost == 3
    await until(lambda: len(taken) == events.INBOX)
    inbox.put(facts.denied())
    await asyncio.sleep(0)
    await until(lambda: len(taken) == events.INBOX + 1)


@looped
async def test_changes_of_health_are_told_to_who_asks_for_them() -> None:
    hub = EventHub()
    asks, others = hub.subscribe([EventKind.BACKEND]), hub.subscribe([EventKind.DENIED])
    event = BackendEvent(facts.backend_state())
    hub.tell(event)
    hub.publish(facts.denied())
    assert await anext(asks.batches()) == [event]
    (refusal,) = await anext(others.batches())
    assert isinstance(refusal, Event)


@looped
async def test_what_audit_lets_through_is_learned_and_shown_with_names() -> None:
    hub = EventHub()
    learned: list[Decision] = []
    hub.audited = learned.append
    hub.host_name = lambda address: f"host-of-{address}"
    hub.publish(facts.denied())
    hub.publish(Event(EventKind.AUDITED, facts.decision(reason=Reason.NO_MAPPING, mapping="")))
    assert [decision.name for decision in hub.refusals()] == ["host-of-10.0.0.9"] * 2
    assert [decision.name for decision in learned] == ["host-of-10.0.0.9"]
