"""What `marchproxy status` shows, without what reads a command line: that would double the time it takes.

People and scripts ask it more often than anything else. `marchproxy.__main__` comes here directly where it is
asked as usual.
"""

from collections.abc import Iterator
from typing import Any

from marchproxy.cli.context import Environment, of_process
from marchproxy.cli.errors import ExitCode, ended
from marchproxy.cli.health import condition, place
from marchproxy.cli.output import Output, serialise, show_lines
from marchproxy.cli.table import Columns, Row, draw
from marchproxy.client.control import Control
from marchproxy.client.units import duration, size
from marchproxy.client.words import meaning

_INTERFACES: Columns = {
    "INTERFACE": "name",
    "ROLE": "role",
    "MODE": "mode",
    "ATTACHED": lambda row: row["attached"] or "no",
    "PROBLEM": "problem",
}
_FAILING: Columns = {
    "NAME": "name",
    "ADDRESSES": "address_count",
    "SINCE": "since",
    "ERROR": "error",
}
_BACKENDS: Columns = {
    "BACKEND": place,
    "SERVICE": "service",
    "CHECK": "check",
    "STATE": condition,
    "SINCE": "since",
    "WHY": "why",
}
_SHOWN_BACKENDS = 20
_CERTIFICATES: Columns = {
    "CERTIFICATE": "name",
    "HOSTS": lambda row: ", ".join(row["hosts"]),
    "EXPIRES": "expires",
    "USABLE": "usable",
}
_COUNTERS: Columns = {
    "REASON": "reason",
    "PACKETS": "packets",
    "BYTES": lambda row: size(row["bytes"]),
    "MEANING": lambda row: meaning(row["reason"]),
}
_DENIALS: Columns = {
    "VERDICT": "verdict",
    "REASON": "reason",
    "MAPPING": lambda row: row["mapping"] or "-",
    "PACKETS": "packets",
    "BYTES": lambda row: size(row["bytes"]),
}
_SHOWN_DENIALS = 10
_LIMITS: Columns = {
    "LIMIT": "name",
    "PASSED": "passed_packets",
    "BYTES": lambda row: size(row["passed_bytes"]),
    "DROPPED": "dropped_packets",
    "DROPPED BYTES": lambda row: size(row["dropped_bytes"]),
}
_TABLES: Columns = {
    "TABLE": "name",
    "USED": "used",
    "LIMIT": "limit",
    "FILL": lambda row: f"{row['used'] / row['limit']:.0%}" if row["limit"] else "-",
}


def status(environment: Environment, output: Output) -> ExitCode:
    """Print what the daemon says: `FAILED` where something is wrong. Raises `DaemonNotRunning`."""
    document = _flat(Control(environment).get("/v1/status"))
    if output is Output.TABLE:
        show_lines(environment, _lines(environment, document))
    else:
        environment.stdout.write(serialise(document, output))
    return ExitCode.DONE if document["healthy"] else ExitCode.FAILED


def run(output: str) -> int:
    """The whole of `marchproxy status --output …`; the exit code. No exception leaves this function."""
    environment = of_process()
    environment.command = "marchproxy status"
    return ended(environment, lambda: status(environment, Output(output)))


def _flat(document: dict[str, Any]) -> dict[str, Any]:
    """The daemon's document with `revision` as a number and `tier` as a name, their details beside them."""
    revision, tier = document["revision"], document["tier"]
    flat = {
        "revision": revision["number"],
        "sha256": revision["sha256"],
        "applied": revision["applied"],
        "applied_ms": revision["applied_ms"],
        "tier": tier["name"],
        "tier_reason": tier["reason"],
    }
    return {
        "version": document["version"],
        **flat,
        **{key: document[key] for key in document if key not in flat},
    }


def _lines(environment: Environment, document: dict[str, Any]) -> Iterator[str]:
    healthy = document["healthy"]
    state = (
        environment.colour("serving", "green") if healthy else environment.colour("something is wrong", "red")
    )
    since = f"up {duration(document['uptime_s'])}, process {document['pid']}"
    yield f"MarchProxy {document['version']}: {state}, {since}"
    for problem in document["problems"]:
        yield environment.colour(f"  ! {problem}", "red")
    for warning in document.get("warnings", ()):
        yield environment.colour(f"  {warning}", "yellow")
    yield f"revision {document['revision']}, applied {document['applied'] or 'never'}"
    if document["trial"]:
        trial = document["trial"]
        yield environment.colour(
            f"revision {trial['revision']} goes back to {trial['previous']} in {trial['remaining_s']:.0f} s,"
            " unless: marchproxy confirm",
            "yellow",
        )
    reason = f": {document['tier_reason']}" if document["tier_reason"] else ""
    yield f"tier {document['tier']}{reason}"
    yield f"listeners: {len(document['listeners'])}, host names: {len(document['names'])}"
    backends = document.get("backends", [])
    down, drained = ([row for row in backends if wanted(row)] for wanted in (_is_down, _is_drained))
    if backends:
        checked = sum(row["check"] not in ("none", "requests") for row in backends)
        yield f"backends: {checked} checked, {len(down)} down, {len(drained)} drained"
    for listener in document.get("dns", {}).get("listeners", ()):
        yield f"dns {listener['bind']}: for {', '.join(listener['interfaces']) or 'nobody'}"
    for sink in document.get("sinks", ()):
        lost = sum(sink["lost"].values())
        yield (
            f"{sink['kind']} of cluster {sink['cluster']} to {sink['target']}: {sink['sent']} sent,"
            f" {sink['waiting']} waiting, {lost} lost"
        )
    if document["lost_events"]:
        yield f"events that came too fast to be told, counted all the same: {document['lost_events']}"
    denials = [
        {**row, "verdict": verdict}
        for key, verdict in (("denied", "deny"), ("audited", "audit"))
        for row in document[key][:_SHOWN_DENIALS]
    ]
    counters = [{"reason": name, **traffic} for name, traffic in document["counters"].items()]
    counters.sort(key=lambda row: -row["packets"])
    for rows, columns in (
        (document["interfaces"], _INTERFACES),
        ([row for row in document.get("host_names", ()) if row["error"]], _FAILING),
        ([*down, *(row for row in drained if row not in down)][:_SHOWN_BACKENDS], _BACKENDS),
        (document.get("certificates", ()), _CERTIFICATES),
        (counters, _COUNTERS),
        (denials, _DENIALS),
        (document["limits"], _LIMITS),
        (document["flow_table"], _TABLES),
    ):
        if rows:
            yield ""
            yield from draw(rows, columns, environment.width)


def _is_down(backend: Row) -> bool:
    return bool(backend["state"] == "down")


def _is_drained(backend: Row) -> bool:
    return bool(backend["drained"])
