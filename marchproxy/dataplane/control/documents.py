"""Records as JSON documents. Keys are stable: scripts, the CLI and the TUI read them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from marchproxy.dataplane.agreement import Explanation, KernelAnswer
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.events import Told
from marchproxy.dataplane.logring import Said
from marchproxy.dataplane.outbox import Lost
from marchproxy.dataplane.preview import Preview
from marchproxy.dataplane.records import (
    BackendEvent,
    BackendState,
    Decision,
    EventKind,
    Exchanged,
    Flow,
    InterfaceEvent,
    InterfaceState,
    LimitState,
    ProblemEvent,
    ReloadEvent,
)
from marchproxy.dataplane.status import CertificateState, DnsState, NameState, Status
from marchproxy.dataplane.toplists import REASON, TopList
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer
from marchproxy.policy.plan import Finding, Listener, TransitRule
from marchproxy.telemetry.logs.sink import SinkState

type Document = dict[str, Any]

SHOWN_ADDRESSES = 64
"""Addresses of one name that are shown one by one."""


def instant(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, to the millisecond; empty for 0, which means never."""
    if not seconds:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def decision_document(decision: Decision) -> Document:
    """The decision record, flat."""
    return {
        "time": instant(decision.time),
        "id": decision.id,
        "source": str(decision.source),
        "source_port": decision.source_port,
        "destination": str(decision.destination),
        "destination_port": decision.destination_port,
        "protocol": decision.protocol,
        "tier": decision.tier.label,
        "verdict": decision.verdict.value,
        "reason": decision.reason.name,
        "mapping": decision.mapping,
        "revision": decision.revision,
        "source_service": decision.source_service,
        "destination_service": decision.destination_service,
        "name": decision.name,
        "interface": decision.interface,
        "count": decision.count,
    }


def flow_document(flow: Flow) -> Document:
    """A flow: its decision record, and what became of it."""
    return {
        **decision_document(flow.decision),
        "backend": str(flow.backend),
        "backend_port": flow.backend_port,
        "state": flow.state.value,
        "started": instant(flow.started),
        "last_seen": instant(flow.last_seen),
        "packets_sent": flow.sent.packets,
        "bytes_sent": flow.sent.bytes,
        "packets_received": flow.received.packets,
        "bytes_received": flow.received.bytes,
    }


def backend_document(state: BackendState) -> Document:
    """A backend that is checked or drained, or that requests leave out."""
    return {
        "service": state.service,
        "address": str(state.address),
        "port": state.port,
        "check": state.check,
        "state": "unchecked" if state.up is None else "up" if state.up else "down",
        "checked": state.checked,
        "drained": state.drained,
        "since": instant(state.since),
        "why": state.why,
    }


def interface_document(state: InterfaceState) -> Document:
    """An interface of the plan."""
    return {
        "name": state.name,
        "role": state.role.value,
        "mode": state.mode,
        "attached": state.attached,
        "problem": state.problem,
    }


def _sink_document(sink: SinkState) -> Document:
    """Where logs of a cluster go."""
    return {
        "cluster": sink.cluster,
        "kind": sink.kind,
        "target": sink.target,
        "sent": sink.sent,
        "lost": dict(sink.lost),
        "waiting": sink.waiting,
        "problem": sink.problem,
    }


def preview_document(preview: Preview) -> Document:
    """Flows that a change would cut, each with why: `cut_reason` and `cut_by`."""
    return {
        "cut": preview.count,
        "looked_at": preview.looked_at,
        "complete": preview.complete,
        "unresolved": list(preview.unresolved),
        "flows": [
            {**flow_document(cut.flow), "cut_reason": cut.reason.name, "cut_by": cut.mapping}
            for cut in preview.cuts
        ],
    }


def lost_document(lost: Lost) -> Document:
    """The line of a stream where something is missing."""
    return {"kind": "lost", "count": lost.count}


def event_document(event: Told | Lost) -> Document:
    """One line of the event stream: `kind`, and the record."""
    if isinstance(event, Lost):
        return lost_document(event)
    if isinstance(event, BackendEvent):
        state = event.state
        return {"kind": EventKind.BACKEND.value, "time": instant(state.since), **backend_document(state)}
    if isinstance(event, ReloadEvent | InterfaceEvent | ProblemEvent):
        return _own_event(event)
    record = flow_document(event.flow) if event.flow else decision_document(event.decision)
    exchanged = _exchanged_document(event.exchanged) if event.exchanged else {}
    return {"kind": event.kind.value, **record, **exchanged}


def _exchanged_document(exchanged: Exchanged) -> Document:
    return {
        "method": exchanged.method,
        "path": exchanged.path,
        "version": exchanged.version,
        "tls": bool(exchanged.tls),
        "tls_version": exchanged.tls,
        "status": exchanged.status,
        "backend": exchanged.backend,
        "route": exchanged.route,
        "request_id": exchanged.request_id,
        "traceparent": exchanged.traceparent,
        "bytes_sent": exchanged.sent,
        "bytes_received": exchanged.received,
        "attempts": exchanged.attempts,
        "mirror": exchanged.mirror,
        "early_data": exchanged.early_data,
        "connected_ms": milliseconds(exchanged.connected),
        "waited_ms": milliseconds(exchanged.waited),
        "took_ms": milliseconds(exchanged.took),
    }


def log_document(said: Said) -> Document:
    """One record of the daemon's own log."""
    return {
        "number": said.number,
        "time": instant(said.time),
        "level": said.level,
        "process": said.process,
        "logger": said.logger,
        "flow": said.flow,
        "message": said.message,
        "exception": said.exception,
    }


def _own_event(event: ReloadEvent | InterfaceEvent | ProblemEvent) -> Document:
    time = instant(event.time)
    if isinstance(event, InterfaceEvent):
        change = "attached" if event.state.attached else "lost"
        interface = interface_document(event.state)
        return {"kind": EventKind.INTERFACE.value, "time": time, "change": change, **interface}
    if isinstance(event, ProblemEvent):
        return {
            "kind": EventKind.PROBLEM.value,
            "time": time,
            "change": "ended" if event.over else "began",
            "component": event.component,
            "message": event.message,
        }
    return {
        "kind": EventKind.RELOAD.value,
        "time": time,
        "change": "failed" if event.message else "applied",
        "revision": event.revision,
        "sha256": event.sha256,
        "applied_ms": milliseconds(event.took),
        "message": event.message,
    }


def top_document(top: TopList) -> Document:
    """Who carries most, or what is refused most."""
    measured = top.of.measured
    rows = [
        {
            "name": row.name,
            "flows": row.flows,
            "packets": row.packets,
            "bytes": row.bytes if measured else None,
            "packets_per_s": row.packets_per_s,
            "bytes_per_s": row.bytes_per_s if measured else None,
        }
        | ({"mapping": row.mapping} if top.of.by == REASON else {})
        for row in top.rows
    ]
    return {
        "by": top.of.by,
        "denied": top.of.refusals,
        "rows": rows,
        "total": top.total,
        "seconds": round(top.seconds, 3),
    }


def finding_document(finding: Finding) -> Document:
    """What the compiler has to say about the snapshot."""
    return {
        "severity": finding.severity.value,
        "subject": finding.subject,
        "message": finding.message,
        "hint": finding.hint,
    }


def status_document(status: Status) -> Document:
    """The daemon at one moment. `listeners` is the list; their count is its length."""
    return {
        "version": status.version,
        "pid": status.pid,
        "started": instant(status.started),
        "uptime_s": round(status.now - status.started, 3),
        "healthy": status.healthy,
        "problems": [str(problem) for problem in status.problems],
        "warnings": [str(warning) for warning in status.warnings],
        "revision": {
            "number": status.applied.number,
            "sha256": status.applied.sha256,
            "applied": instant(status.applied.at),
            "applied_ms": milliseconds(status.applied.took),
        },
        "trial": _trial_document(status),
        "tier": {"name": status.tier, "reason": status.tier_reason},
        "interfaces": [interface_document(interface) for interface in status.interfaces],
        "listener_count": len(status.listeners),
        "explicit": [str(bind) for bind in status.explicit],
        "listeners": [_listener_document(listener) for listener in status.listeners],
        "counters": _counters(status),
        "denied": _denials(status, audited=False),
        "audited": _denials(status, audited=True),
        "limits": [_limit(limit) for limit in status.limits],
        "flow_table": [
            {"name": table.name, "used": table.used, "limit": table.limit} for table in status.tables
        ],
        "lost_events": status.lost_events,
        "reloads": status.reloads,
        "failed_reloads": status.failed_reloads,
        "backends": [backend_document(state) for state in status.backends],
        "requests": dict(status.requests),
        "sinks": [_sink_document(sink) for sink in status.sinks],
        "names": {name.name: [str(each.address) for each in name.addresses] for name in status.names},
        "host_names": [_name_document(name) for name in status.names],
        "dns": _dns_document(status.dns),
        "certificates": [_certificate_document(state) for state in status.certificates],
    }


def _certificate_document(state: CertificateState) -> Document:
    return {
        "name": state.name,
        "hosts": list(state.hosts),
        "issuer": state.issuer,
        "fingerprint": state.fingerprint,
        "expires": instant(state.expires),
        "usable": state.usable,
    }


def _name_document(name: NameState) -> Document:
    shown = name.addresses[:SHOWN_ADDRESSES]
    return {
        "name": name.name,
        "state": name.state,
        "error": name.error,
        "since": instant(name.since),
        "ttl_s": round(name.ttl),
        "address_count": len(name.addresses),
        "addresses": [
            {
                "address": str(each.address),
                "state": "current" if each.current else "lingering",
                "left_s": None if each.left is None else round(each.left),
            }
            for each in shown
        ],
        "refused": {str(address): what for address, what in name.refused.items()},
        "unlearned": name.unlearned,
    }


def _dns_document(dns: DnsState) -> Document:
    return {
        "listeners": [
            {"bind": str(listener.bind), "interfaces": list(listener.interfaces)}
            for listener in dns.listeners
        ],
        "questions": dict(dns.questions),
        "rebinding": dict(dns.rebinding),
    }


def answer_document(answer: Answer, why: Sequence[str]) -> Document:
    """What the policy says about a new flow. `backends` is where it may go.

    Routed traffic has none: it goes to its destination.
    """
    places = _places(answer) if answer.verdict.lets_through else _NOWHERE
    services = sorted({backend["service"] for backend in places["backends"]})
    if isinstance(answer.rule, TransitRule):
        services = _spoken_for(answer.destination_services, answer.rule.destinations)
    sources = _spoken_for(answer.source_services, answer.rule.sources if answer.rule else ())
    return {
        "verdict": answer.verdict.value,
        "reason": answer.reason.name,
        "mapping": answer.mapping,
        "source_service": ",".join(sources),
        "source_services": list(answer.source_services),
        "destination_service": ",".join(services),
        "destination_services": list(answer.destination_services),
        "listener": str(answer.listener) if answer.listener else "",
        **places,
        "why": list(why),
    }


_NOWHERE: Document = {"backend": "", "backends": []}


def _places(answer: Answer) -> Document:
    """Where a flow may go that comes in at a listener."""
    backends = answer.pool.taking if answer.pool else ()
    return {
        "backend": ", ".join(str(Endpoint(backend.address, backend.port)) for backend in backends),
        "backends": [
            {
                "address": str(backend.address),
                "port": backend.port,
                "service": backend.service,
                "weight": backend.weight,
            }
            for backend in backends
        ],
    }


def explanation_document(found: Explanation) -> Document:
    """The answer of policy, and under `kernel` that of the kernel; null where nobody can say."""
    kernel = found.kernel
    return {
        **answer_document(found.answer, found.why),
        "kernel": _kernel_document(kernel) if isinstance(kernel, KernelAnswer) else None,
        "kernel_note": kernel if isinstance(kernel, str) else "",
        "agrees": found.agrees,
    }


def _kernel_document(kernel: KernelAnswer) -> Document:
    return {
        "verdict": kernel.verdict.value,
        "reason": kernel.reason.name,
        "mapping": kernel.mapping,
        "backend": str(kernel.backend or ""),
        "seen_as": str(kernel.seen_as or ""),
        "interface": kernel.interface,
    }


def with_token(document: Document, answer: Answer, judged: Verified | Reason) -> Document:
    """The same for a client that presents a credential: `token`, and what it changes where one is wanted."""
    if isinstance(judged, Reason):
        token = {"service": "", "reason": judged.name, "expires": "", "opens": False}
        told = f"the token opens nothing: {judged.meaning}"
        refusal = judged
    else:
        opens = judged.service in answer.openers
        expires = judged.expires.timestamp() if judged.expires else 0
        token = {"service": judged.service, "reason": "", "expires": instant(expires), "opens": opens}
        told = f"the token is one of {judged.service}, which " + ("opens it" if opens else "does not open it")
        refusal = Reason.AUTH_INVALID
    if not answer.openers:
        told += ", and none is asked for"
    changed: Document = {"token": token, "why": [*document["why"], told]}
    if answer.openers and token["opens"]:
        changed |= {"verdict": Verdict.ALLOW.value, "reason": Reason.FORWARDED.name, **_places(answer)}
    elif answer.openers:
        changed |= {"reason": refusal.name}
    return {**document, **changed}


def _spoken_for(services: Sequence[str], named: Sequence[str]) -> list[str]:
    """The service that an address speaks for: of those that the mapping names if it names any, the first."""
    wanted = set(named).intersection(services)
    return [min(wanted or services)] if services else []


def milliseconds(seconds: float) -> float:
    """A duration to the microsecond."""
    return round(seconds * 1000, 3)


def _trial_document(status: Status) -> Document | None:
    trial = status.trial
    if trial is None:
        return None
    return {
        "revision": trial.revision,
        "previous": trial.previous,
        "deadline": instant(trial.deadline.timestamp()),
        "remaining_s": round(status.trial_remaining, 3),
    }


def _listener_document(listener: Listener) -> Document:
    return {
        "address": str(listener.address),
        "port": listener.port,
        "protocol": listener.transport.value,
        "mappings": [rule.mapping for rule in listener.rules],
    }


def _limit(limit: LimitState) -> Document:
    return {
        "name": limit.name,
        "passed_packets": limit.passed.packets,
        "passed_bytes": limit.passed.bytes,
        "dropped_packets": limit.dropped.packets,
        "dropped_bytes": limit.dropped.bytes,
    }


def _denials(status: Status, *, audited: bool) -> Sequence[Document]:
    return [
        {
            "reason": denials.reason.name,
            "mapping": denials.mapping,
            "packets": denials.traffic.packets,
            "bytes": denials.traffic.bytes,
        }
        for denials in status.most_denied(audited=audited)
    ]


def _counters(status: Status) -> Mapping[str, Document]:
    counted = {reason: traffic for reason, traffic in status.counters.items() if traffic.packets}
    return {
        reason.name: {"packets": counted[reason].packets, "bytes": counted[reason].bytes}
        for reason in sorted(counted)
    }
