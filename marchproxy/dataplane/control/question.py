"""What `explain` asks, read."""

import re
from collections.abc import Mapping
from typing import Any

from marchproxy.dataplane.hostaddresses import is_local
from marchproxy.model.address import parse_ip
from marchproxy.model.conditions import parse_method
from marchproxy.model.errors import InvalidValue
from marchproxy.model.httpfields import parse_field_name, parse_field_value
from marchproxy.model.ports import parse_port
from marchproxy.model.protocol import Transport, parse_protocol
from marchproxy.policy.evaluate import Query
from marchproxy.policy.paths import canonical_path

FIELDS = ("port", "host", "path", "query", "method", "headers")
"""What a question may have beside `source`, `destination` and `protocol`."""
_TARGET = re.compile("[!-~]{1,8000}")


def read_question(body: Mapping[str, Any]) -> Query:
    """A question to the policy: `source`, `destination`, `protocol`, and a `port` if the protocol has ports.

    `host`, `path`, `query`, `method` and `headers` are those of an HTTP request, where any is read; without
    them, the destination, `/`, nothing, GET and none. Raises `InvalidValue`.
    """
    transport = parse_protocol(str(body["protocol"])).transport
    source = parse_ip(str(body["source"]), field="source")
    destination = parse_ip(str(body["destination"]), field="destination")
    if source.version != destination.version:
        raise InvalidValue("destination", str(destination), f"an IPv{source.version} address, as the source")
    port = _read_port(body.get("port"), transport)
    path = canonical_path(str(body.get("path") or "/"))
    if path is None:
        raise InvalidValue("path", body.get("path"), "a path without dot segments, such as /a/b")
    host = str(body.get("host") or destination).lower().rstrip(".")
    method = parse_method(str(body.get("method") or "GET"), field="method")
    target = str(body.get("path") or "/") + (f"?{body['query']}" if body.get("query") else "")
    if not _TARGET.fullmatch(target):
        raise InvalidValue(
            "query", body.get("query"), "a path and query as in URLs, with other characters escaped"
        )
    fields = _read_fields(body.get("headers", []))
    return Query(source, destination, port, transport, is_local, host, path, method, target, fields)


def _read_fields(headers: object) -> tuple[tuple[str, str], ...]:
    """Headers as lines, `NAME: VALUE`, those of them that a mapping may look at."""
    if not isinstance(headers, list) or not all(isinstance(line, str) and ":" in line for line in headers):
        raise InvalidValue("headers", headers, "a list of texts such as X-Env: beta")
    split = [line.partition(":") for line in headers]
    return tuple(
        [
            (parse_field_name(name, field="headers"), parse_field_value(value, field="headers"))
            for name, _, value in split
        ]
    )


def _read_port(port: object, transport: Transport | None) -> int:
    if transport is None:
        if port is not None:
            raise InvalidValue("port", port, "none: ICMP has no ports")
        return 0
    return parse_port(port if isinstance(port, int) else str(port or ""))
