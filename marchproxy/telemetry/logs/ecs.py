"""Records as JSON documents with the field names of the Elastic Common Schema, version 8.11."""

import json
import socket
from collections.abc import Sequence
from typing import Any

from marchproxy.telemetry.logs.records import (
    FlowRecord,
    Happening,
    Message,
    Record,
    RequestRecord,
    Severity,
    instant,
)

VERSION = "8.11.0"
_TYPES = {
    Happening.START: ["connection", "start", "allowed"],
    Happening.END: ["connection", "end"],
    Happening.DENIED: ["connection", "denied"],
    Happening.AUDITED: ["connection", "allowed"],
}
_LEVELS = {
    Severity.CRITICAL: "critical",
    Severity.ERROR: "error",
    Severity.WARNING: "warning",
    Severity.NOTICE: "notice",
    Severity.INFO: "info",
    Severity.DEBUG: "debug",
}

type Document = dict[str, Any]


class EcsEncoder:
    """Makes the body of a request of some records."""

    def __init__(self, version: str) -> None:
        """`version` is the program's."""
        self._observer: Document = {
            "vendor": "MarchProxy",
            "product": "MarchProxy",
            "type": "firewall",
            "version": version,
            "hostname": socket.gethostname(),
        }

    def encode(self, records: Sequence[Record]) -> bytes:
        """A JSON array."""
        documents = [self.document(record) for record in records]
        return json.dumps(documents, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")

    def document(self, record: Record) -> Document:
        """One record."""
        observer = self._observer
        if isinstance(record, FlowRecord) and record.interface:
            observer = observer | {"ingress": {"interface": {"name": record.interface}}}
        document: Document = {
            "@timestamp": instant(record.time),
            "ecs": {"version": VERSION},
            "observer": observer,
            "log": {"level": _LEVELS[record.severity]},
        }
        return document | _own(record)


def _own(record: Record) -> Document:
    match record:
        case Message():
            return _message(record)
        case RequestRecord():
            return _request(record)
        case FlowRecord():
            return _flow(record)


def _message(record: Message) -> Document:
    return {
        "message": record.text,
        "event": {
            "kind": "event",
            "module": "marchproxy",
            "action": record.kind,
            "dataset": "marchproxy.debug",
        },
        "marchproxy": {"cluster": record.cluster, **dict(record.fields)},
    }


def _flow(record: FlowRecord) -> Document:
    document: Document = {
        "event": _event(record),
        "source": {"ip": str(record.source), "port": record.source_port},
        "destination": {"ip": str(record.destination), "port": record.destination_port},
        "network": _network(record),
        "marchproxy": {
            "cluster": record.cluster,
            "class": sorted(record.classes),
            "verdict": record.verdict.value,
            "tier": record.tier.label,
            "revision": record.revision,
            "source_service": record.source_service,
            "destination_service": record.destination_service,
            "count": record.count,
        },
    }
    if record.mapping:
        document["rule"] = {"name": record.mapping}
    if record.name:
        document["destination"]["domain"] = record.name
    carried = record.carried
    if carried is not None:
        document["source"] |= {"packets": carried.packets_sent, "bytes": carried.bytes_sent}
        document["destination"] |= {
            "packets": carried.packets_received,
            "bytes": carried.bytes_received,
            "nat": {"ip": str(carried.backend), "port": carried.backend_port},
        }
    return document


def _request(record: RequestRecord) -> Document:
    event: Document = {
        "kind": "event",
        "module": "marchproxy",
        "dataset": "marchproxy.access",
        "category": ["web"],
        "type": ["access"],
        "action": "request",
        "outcome": "success" if 0 < record.status < 400 else "failure",
        "reason": record.reason.name,
        "start": instant(record.time - record.took),
        "end": instant(record.time),
        # In nanoseconds, says the schema.
        "duration": round(record.took * 1e9),
    }
    document: Document = {
        "event": event,
        "source": {"ip": str(record.source), "port": record.source_port},
        "destination": {"ip": str(record.destination), "port": record.destination_port},
        "url": {
            "scheme": "https" if record.tls else "http",
            "domain": record.host,
            "path": record.path,
        },
        "http": {
            "version": record.version,
            "request": {
                "id": record.request_id,
                "method": record.method,
                "body": {"bytes": record.bytes_sent},
            },
            "response": {"status_code": record.status, "body": {"bytes": record.bytes_received}},
        },
        "marchproxy": {
            "cluster": record.cluster,
            "class": sorted(record.classes),
            "verdict": record.verdict.value,
            "revision": record.revision,
            "source_service": record.source_service,
            "destination_service": record.service,
            "route": record.route,
            "backend": record.backend,
            "attempts": record.attempts,
            "mirror": record.mirror,
            "early_data": record.early_data,
            "connected_ms": round(record.connected * 1000, 3),
            "waited_ms": round(record.waited * 1000, 3),
        },
    }
    if record.mapping:
        document["rule"] = {"name": record.mapping}
    if record.tls:
        document["tls"] = {"version_protocol": "tls", "version": record.tls.removeprefix("TLSv")}
    parts = record.traceparent.split("-")
    if len(parts) >= 4:
        document["trace"] = {"id": parts[1]}
        document["span"] = {"id": parts[2]}
    return document


def _event(record: FlowRecord) -> Document:
    event: Document = {
        "kind": "event",
        "module": "marchproxy",
        "dataset": "marchproxy.flow",
        "category": ["network"],
        "type": _TYPES[record.happening],
        "action": record.happening.value,
        "outcome": "success" if record.verdict.lets_through else "failure",
        "reason": record.reason.name,
    }
    if record.id:
        event["id"] = str(record.id)
    if record.carried is not None:
        event["start"] = instant(record.carried.started)
        if record.happening is Happening.END:
            event["end"] = instant(record.time)
            # In nanoseconds, says the schema.
            event["duration"] = max(round((record.time - record.carried.started) * 1e9), 0)
    return event


def _network(record: FlowRecord) -> Document:
    network: Document = {
        "type": f"ipv{record.source.version}",
        "iana_number": str(record.protocol_number),
        "direction": "unknown",
    }
    if not record.protocol.isdigit():
        network["transport"] = "ipv6-icmp" if record.protocol_number == 58 else record.protocol
    if record.carried is not None:
        network["bytes"] = record.carried.bytes_sent + record.carried.bytes_received
        network["packets"] = record.carried.packets_sent + record.carried.packets_received
    return network
