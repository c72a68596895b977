"""Values as text on one line."""

import json
from collections.abc import Mapping
from typing import Any

from marchproxy.model.reason import Reason

_ITEMS = 3
"""Entries of a list shown in one cell; the rest are counted."""


def cell(value: object) -> str:
    """One value as text on one line: `-` for nothing, yes and no, the first few entries of a list."""
    if value in (None, "", []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        more = f",+{len(value) - _ITEMS}" if len(value) > _ITEMS else ""
        return ",".join(cell(item) for item in value[:_ITEMS]) + more
    if isinstance(value, dict):
        return printable(json.dumps(value, ensure_ascii=False))
    return printable(str(value))


def printable(text: str) -> str:
    """The text on one line without control characters: what others chose must not move the operator's cursor.

    Surrogates (bytes of an argument that are no UTF-8) are escaped too.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def endpoint(row: Mapping[str, Any], name: str) -> str:
    """`address:port` of the field `name`, IPv6 in brackets; the address alone where there is no port."""
    return place(row[name], row[f"{name}_port"])


def place(address: str, port: int) -> str:
    """The same of an address and a port."""
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def meaning(reason: str) -> str:
    """What an operator should make of a reason; empty for one that only a newer daemon knows."""
    return Reason[reason].meaning if reason in Reason.__members__ else ""


def happening(event: Mapping[str, Any]) -> str:
    """What an event is about that is of no flow. Of a kind that only a newer daemon knows, all there is."""
    match event["kind"]:
        case "backend":
            why = f": {event['why']}" if event["why"] else ""
            return f"{place(event['address'], event['port'])} of {event['service']}{why}"
        case "reload" if event["change"] == "failed":
            return f"revision {event['revision']} stays in force: {event['message']}"
        case "reload":
            return f"revision {event['revision']} is in force, after {event['applied_ms']:.0f} ms"
        case "interface":
            how = event["attached"] or event["problem"] or "nothing is attached"
            return f"{event['name']} ({event['role']}): {how}"
        case "problem":
            return f"{event['component']}: {event['message']}"
        case "request":
            return _request(event)
        case _:
            return json.dumps({key: event[key] for key in event if key != "time"}, ensure_ascii=False)


def _request(event: Mapping[str, Any]) -> str:
    """An HTTP request, as one line of an access log."""
    where = event["name"] or place(event["destination"], event["destination_port"])
    scheme = "https" if event["tls"] else "http"
    by = f" by {event['backend']}" if event["backend"] else ""
    why = f", {event['reason']}" if event["verdict"] == "deny" else ""
    asked = (
        f"{place(event['source'], event['source_port'])} {event['method']} {scheme}://{where}{event['path']}"
    )
    return (
        f"{asked}: {event['status'] or 'gone'}{why}{by}, {event['took_ms']:.1f} ms  {event['mapping'] or '-'}"
    )


def turn(event: Mapping[str, Any]) -> str:
    """Which way something turned: `down`, `failed`, `began`."""
    return str(event.get("change") or event.get("state") or event["kind"])
