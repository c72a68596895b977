"""HTTP requests as lines of JSON with the names that `events --kind request` has, and a few more."""

import json
from collections.abc import Sequence
from typing import Any

from marchproxy.telemetry.logs.records import Record, RequestRecord, instant


def encode(records: Sequence[Record]) -> bytes:
    """A line for each request; other records are not for such a file."""
    lines = [line(record) for record in records if isinstance(record, RequestRecord)]
    return "".join(lines).encode("ascii")


def line(record: RequestRecord) -> str:
    """One request."""
    return json.dumps(document(record), separators=(",", ":")) + "\n"


def document(record: RequestRecord) -> dict[str, Any]:
    """Its fields in a fixed order, all of them always: `""` and 0 where there is nothing to say."""
    return {
        "time": instant(record.time),
        "id": record.request_id,
        "traceparent": record.traceparent,
        "cluster": record.cluster,
        "client": str(record.source),
        "client_port": record.source_port,
        "source_service": record.source_service,
        "mapping": record.mapping,
        "route": record.route,
        "service": record.service,
        "backend": record.backend,
        "method": record.method,
        "scheme": "https" if record.tls else "http",
        "host": record.host,
        "path": record.path,
        "version": record.version,
        "tls": record.tls,
        "status": record.status,
        "verdict": record.verdict.value,
        "reason": record.reason.name,
        "bytes_sent": record.bytes_sent,
        "bytes_received": record.bytes_received,
        "attempts": record.attempts,
        "mirror": record.mirror,
        "early_data": record.early_data,
        "connected_ms": _milliseconds(record.connected),
        "waited_ms": _milliseconds(record.waited),
        "took_ms": _milliseconds(record.took),
        "flow": record.id,
        "revision": record.revision,
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
