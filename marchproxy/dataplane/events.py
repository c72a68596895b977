"""Events on their way to whoever watches: the last refusals, and a stream for each subscriber."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from marchproxy.dataplane.allowance import ALLOWANCE, Allowance
from marchproxy.dataplane.flowquery import EVERYTHING, FlowFilter, is_named
from marchproxy.dataplane.naming import ServiceNames
from marchproxy.dataplane.outbox import Outbox
from marchproxy.dataplane.records import (
    BackendEvent,
    Decision,
    Event,
    EventKind,
    InterfaceEvent,
    ProblemEvent,
    ReloadEvent,
    make_event,
)
from marchproxy.dataplane.refused import Refused
from marchproxy.model.address import IPAddress
from marchproxy.policy.plan import Plan

RECENT_REFUSALS = 10_000
"""Refusals that `flows --denied` can show; older ones are in the flow log, if there is one."""
INBOX = 50_000
"""Events that wait for the loop."""
_AT_ONCE = 1_000
REFUSALS = frozenset({EventKind.DENIED, EventKind.AUDITED})
"""What was refused, and what would have been but for audit: always wanted, and shown side by side."""


type OwnEvent = BackendEvent | ReloadEvent | InterfaceEvent | ProblemEvent
"""Of no flow: what the daemon finds out itself."""
type Told = Event | OwnEvent
type Listener = Callable[[Any], None]
"""Takes the events that its kinds are of."""

_OWN_KINDS: Mapping[type, EventKind] = {
    BackendEvent: EventKind.BACKEND,
    ReloadEvent: EventKind.RELOAD,
    InterfaceEvent: EventKind.INTERFACE,
    ProblemEvent: EventKind.PROBLEM,
}


class Subscription(Outbox[Told]):
    """The events of one subscriber."""

    def __init__(self, kinds: frozenset[EventKind], wanted: FlowFilter) -> None:
        super().__init__()
        self.kinds = kinds
        self._wanted = wanted

    def offer(self, event: Told) -> None:
        """Queue an event if it is asked for."""
        if concerns(event, self._wanted):
            self.put(event)


class Inbox:
    """Takes a tier's events from whatever thread it reports in, and hands them to the loop's in order."""

    def __init__(self, publish: Callable[[Event], None], allowance: Allowance = ALLOWANCE) -> None:
        self.lost = 0
        self._allowance = allowance
        self._publish = publish
        self._waiting: deque[Event] = deque()
        self._scheduled = False
        self._loop = asyncio.get_running_loop()

    def put(self, event: Event) -> None:
        """Leave an event; when the loop is far behind, it is counted as lost."""
        if len(self._waiting) >= INBOX:
            self.lost += 1
            return
        self._waiting.append(event)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        # First this, then the look: an event put in between is either seen below or schedules anew.
        self._scheduled = False
        began, count = time.thread_time(), min(len(self._waiting), _AT_ONCE)
        for _ in range(count):
            self._publish(self._waiting.popleft())
        self._allowance.spend(time.thread_time() - began, count)
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._take)


class EventHub:
    """Takes every event of the data plane, completes it with service names, and hands it on."""

    def __init__(self) -> None:
        self.names = ServiceNames(Plan())
        """Of the plan that is carried out; the supervisor replaces it with the plan."""
        self.host_name: Callable[[IPAddress], str] = _nameless
        """Which host name an address was asked for by, where somebody knows."""
        self.service: Callable[[IPAddress], str] = _nameless
        """The service of an address that the plan has no rule for."""
        self.audited: Callable[[Decision], None] = _ignore
        """Takes what audit lets through, completed."""
        self.refused = Refused()
        """Who was denied most, since the daemon began."""
        self._refusals: deque[Decision] = deque(maxlen=RECENT_REFUSALS)
        self._subscriptions: set[Subscription] = set()
        self._listeners: dict[Listener, frozenset[EventKind]] = {}

    def publish(self, event: Event) -> None:
        """Take one event; called in the loop's thread. Costs next to nothing while nobody listens."""
        refused = event.kind in REFUSALS
        if not refused and not self._subscriptions and not self._listeners:
            return
        flow = self.names.complete_flow(event.flow) if event.flow else None
        decision = flow.decision if flow else self.names.complete(event.decision)
        if refused:
            decision = self._named(decision)
            self._refusals.append(decision)
        if event.kind is EventKind.DENIED:
            self.refused.take(decision)
        elif event.kind is EventKind.AUDITED:
            self.audited(decision)
        self._offer(event.kind, make_event(event.kind, decision, flow, event.exchanged))

    def completed(self, refused: Decision) -> Decision:
        """The record of a refusal with its services and the name that was asked for."""
        return self._named(self.names.complete(refused))

    def tell(self, event: OwnEvent) -> None:
        """Take what the daemon found out itself; called in the loop's thread."""
        self._offer(_OWN_KINDS[type(event)], event)

    def _offer(self, kind: EventKind, event: Told) -> None:
        for subscription in self._subscriptions:
            if kind in subscription.kinds:
                subscription.offer(event)
        for listener, kinds in self._listeners.items():
            if kind in kinds:
                listener(event)

    def _named(self, decision: Decision) -> Decision:
        return replace(
            decision,
            name=decision.name or self.host_name(decision.destination),
            source_service=decision.source_service or self.service(decision.source),
            destination_service=decision.destination_service or self.service(decision.destination),
        )

    @property
    def wanted(self) -> frozenset[EventKind]:
        """Kinds that anybody looks at: refusals always, for `refusals`."""
        kinds = (subscription.kinds for subscription in self._subscriptions)
        return REFUSALS.union(*kinds, *self._listeners.values())

    def refusals(self) -> Sequence[Decision]:
        """The last refusals, newest first."""
        return tuple(reversed(self._refusals))

    def subscribe(
        self, kinds: Iterable[EventKind] = EventKind, wanted: FlowFilter = EVERYTHING
    ) -> Subscription:
        """Begin to collect events of these kinds that `wanted` holds for; `unsubscribe` ends it."""
        subscription = Subscription(frozenset(kinds), wanted)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscriber."""
        self._subscriptions.discard(subscription)

    def listen(self, kinds: Iterable[EventKind], listener: Listener) -> None:
        """Have `listener` called with each event of these kinds; `unlisten` ends it."""
        self._listeners[listener] = frozenset(kinds)

    def unlisten(self, listener: Listener) -> None:
        """Forget a listener."""
        self._listeners.pop(listener, None)


def concerns(event: Told, wanted: FlowFilter) -> bool:
    """Whether a filter for flows lets an event through.

    What is of no flow comes only where none is set; a backend also where its service alone is asked for.
    """
    if not wanted:
        return True
    if isinstance(event, Event):
        return wanted.matches(event.decision, event.flow.backend if event.flow else None)
    if isinstance(event, BackendEvent) and wanted == FlowFilter(service=wanted.service):
        return is_named(event.state.service, wanted.service)
    return False


def _nameless(_: IPAddress) -> str:
    """Nobody knows a name."""
    return ""


def _ignore(_: Decision) -> None:
    """Nobody learns."""
