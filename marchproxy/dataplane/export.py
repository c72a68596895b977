"""From the data plane's events to records in the sinks of their clusters. Without sinks it is free."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from marchproxy.dataplane import logs
from marchproxy.dataplane.allowance import ALLOWANCE, Allowance
from marchproxy.dataplane.events import Listener
from marchproxy.dataplane.intent import Intent
from marchproxy.dataplane.records import BackendEvent, Event, EventKind, Exchanged, Flow
from marchproxy.dataplane.status import Problem
from marchproxy.model.errors import MarchproxyError
from marchproxy.model.names import DEFAULT_CLUSTER, cluster_of
from marchproxy.model.reason import Reason, Tier
from marchproxy.store.credentials import Secrets
from marchproxy.telemetry.logs.exports import Exports, targets
from marchproxy.telemetry.logs.records import (
    Carried,
    FlowRecord,
    Happening,
    LogClass,
    Message,
    RequestRecord,
    Severity,
    make_carried,
    make_flow_record,
)
from marchproxy.telemetry.logs.sink import SinkState
from marchproxy.version import VERSION

AUTH_REASONS = frozenset(
    {
        Reason.AUTH_MISSING,
        Reason.AUTH_INVALID,
        Reason.AUTH_EXPIRED,
        Reason.AUTH_REVOKED,
        Reason.SNI_MISMATCH,
        Reason.SNI_MISSING,
    }
)
"""What only admission says, whoever found it out."""

_HAPPENINGS = {
    EventKind.FLOW_START: Happening.START,
    EventKind.FLOW_END: Happening.END,
    EventKind.DENIED: Happening.DENIED,
    EventKind.AUDITED: Happening.AUDITED,
}
_KINDS = {happening: kind for kind, happening in _HAPPENINGS.items()}
_NETFLOW = frozenset({LogClass.NETFLOW})
_BOTH = frozenset({LogClass.NETFLOW, LogClass.AUTH})
_SEVERITIES = {
    logging.CRITICAL: Severity.CRITICAL,
    logging.ERROR: Severity.ERROR,
    logging.WARNING: Severity.WARNING,
    logging.INFO: Severity.INFO,
}


class Events(Protocol):
    """Who tells events."""

    async def listen(self, kinds: frozenset[EventKind], told: Listener) -> None:
        """Have `told` called for each event of these kinds."""

    def unlisten(self, told: Listener) -> None:
        """No longer."""


class LogExport:
    """Keeps the sinks that the snapshot asks for, and listens to events while somebody wants them."""

    def __init__(
        self, intent: Intent, events: Events, folder: Path, allowance: Allowance = ALLOWANCE
    ) -> None:
        """`folder` is for files."""
        self._intent = intent
        self._folder = folder
        self._events = events
        self._kinds: frozenset[EventKind] = frozenset()
        self._exports = Exports(VERSION, allowance.spend)
        self._handler: _Handler | None = None
        self._failure = ""
        self._secrets = Secrets({}, ())

    async def reload(self) -> None:
        """Have the sinks of what is carried out now. What cannot be read is a problem, and stops nothing."""
        snapshot = self._intent.snapshot
        addresses = {cluster.name: cluster.log_http for cluster in snapshot.clusters if cluster.log_http}
        if addresses:
            try:
                self._secrets = await self._intent.read(lambda store: store.credentials.log_tokens(addresses))
                self._failure = ""
            except MarchproxyError as error:
                self._failure = f"tokens of log platforms cannot be read: {error.message}"
        else:
            self._failure, self._secrets = "", Secrets({}, ())
        number, tokens = snapshot.settings.enterprise_number, self._secrets.opened
        wanted = [
            target
            for cluster in snapshot.clusters
            for target in targets(cluster.name, cluster, number, tokens.get(cluster.name), self._folder)
        ]
        self._exports.configure(wanted)
        self._follow_logs(self._exports.wants_debug(DEFAULT_CLUSTER))
        kinds = {_KINDS[happening] for happening in self._exports.happenings}
        if any(LogClass.DEBUG in target.classes for target in wanted):
            kinds.add(EventKind.BACKEND)
        if self._exports.wants_requests:
            kinds.add(EventKind.REQUEST)
        if kinds == self._kinds:
            return
        self._kinds = frozenset(kinds)
        if kinds:
            await self._events.listen(self._kinds, self.offer)
        else:
            self._events.unlisten(self.offer)

    def offer(self, event: Event | BackendEvent) -> None:
        """Take an event, completed with names. In the loop's thread."""
        if isinstance(event, BackendEvent):
            self._exports.offer(_backend(event))
        elif event.exchanged is not None:
            self._exports.offer(request_of(event, event.exchanged))
        else:
            self._exports.offer(record_of(event))

    def states(self) -> Sequence[SinkState]:
        """How each sink is."""
        return self._exports.states()

    def problems(self) -> Sequence[Problem]:
        """What does not arrive, and why."""
        said = (self._failure, *self._secrets.failures, *self._exports.problems())
        return [Problem("logs", text) for text in said if text]

    async def close(self) -> None:
        """Deliver what waits, as far as that takes no time, and end."""
        self._follow_logs(False)
        await self._exports.close()

    def _follow_logs(self, wanted: bool) -> None:
        if wanted and self._handler is None:
            self._handler = _Handler(self._exports)
            logs.listen(self._handler)
        elif not wanted and self._handler is not None:
            logs.unlisten(self._handler)
            self._handler = None


class _Handler(logging.Handler):
    """What the daemon logs, for the cluster that everything belongs to that is nobody's."""

    def __init__(self, exports: Exports) -> None:
        super().__init__()
        self._exports = exports
        self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand it to the loop, from whatever thread."""
        flow = logs.flow_of(record)
        fields = (("logger", record.name), *((("id", str(flow)),) if flow else ()))
        severity = _SEVERITIES.get(record.levelno, Severity.DEBUG)
        message = Message(DEFAULT_CLUSTER, "log", record.created, severity, record.getMessage(), fields)
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._exports.offer, message)


def record_of(event: Event) -> FlowRecord:
    """An event as a record of the cluster of its mapping; where none decided, of its services."""
    decision, flow = event.decision, event.flow
    owner = decision.mapping or decision.source_service or decision.destination_service
    admission = decision.reason in AUTH_REASONS or (
        decision.tier is Tier.SOCKETS and event.kind is not EventKind.FLOW_END
    )
    return make_flow_record(
        cluster_of(owner),
        _BOTH if admission else _NETFLOW,
        _HAPPENINGS[event.kind],
        decision.time,
        decision.id,
        decision.source,
        decision.source_port,
        decision.destination,
        decision.destination_port,
        decision.protocol,
        decision.tier,
        decision.verdict,
        decision.reason,
        decision.mapping,
        decision.revision,
        decision.source_service,
        decision.destination_service,
        decision.name,
        decision.interface,
        decision.count,
        _carried(flow) if flow else None,
    )


def request_of(event: Event, exchanged: Exchanged) -> RequestRecord:
    """A request as a record of the cluster of its mapping; where none decided, of its source's service."""
    decision = event.decision
    return RequestRecord(
        cluster=cluster_of(decision.mapping or decision.source_service),
        time=decision.time,
        id=decision.id,
        request_id=exchanged.request_id,
        traceparent=exchanged.traceparent,
        source=decision.source,
        source_port=decision.source_port,
        destination=decision.destination,
        destination_port=decision.destination_port,
        source_service=decision.source_service,
        mapping=decision.mapping,
        route=exchanged.route,
        service=exchanged.service,
        backend=exchanged.backend,
        method=exchanged.method,
        host=decision.name,
        path=exchanged.path,
        version=exchanged.version,
        tls=exchanged.tls,
        status=exchanged.status,
        verdict=decision.verdict,
        reason=decision.reason,
        revision=decision.revision,
        bytes_sent=exchanged.sent,
        bytes_received=exchanged.received,
        attempts=exchanged.attempts,
        mirror=exchanged.mirror,
        early_data=exchanged.early_data,
        connected=exchanged.connected,
        waited=exchanged.waited,
        took=exchanged.took,
    )


def _carried(flow: Flow) -> Carried:
    return make_carried(
        flow.backend,
        flow.backend_port,
        flow.started,
        flow.sent.packets,
        flow.sent.bytes,
        flow.received.packets,
        flow.received.bytes,
    )


def _backend(event: BackendEvent) -> Message:
    state = event.state
    where = f"{state.service} at {state.address}:{state.port}"
    fields = (("service", state.service), ("address", str(state.address)), ("port", str(state.port)))
    text, severity = f"{where} is up", Severity.INFO
    if not state.up:
        text, severity = f"{where} is down: {state.why}", Severity.WARNING
    return Message(cluster_of(state.service), "backend", state.since, severity, text, fields)
