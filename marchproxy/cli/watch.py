"""`flows --follow` and `events`: what happens, as it happens."""

import gc
import json
import time
from collections.abc import Iterator, Mapping

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode, warn
from marchproxy.cli.output import Output, to_yaml
from marchproxy.cli.table import Row
from marchproxy.client.control import Control
from marchproxy.client.words import endpoint, happening, printable, turn
from marchproxy.model.errors import DaemonNotRunning

REFUSALS = "denied,audited"
FLOWS = f"flow-start,flow-end,{REFUSALS}"
AGAIN = 1.0
"""Seconds between two looks for a daemon that has ended."""
_WORDS = {
    "flow-start": ("start", "green"),
    "flow-end": ("end", "dim"),
    "denied": ("denied", "red"),
    "audited": ("audit", "yellow"),
}
_CHANGES = {
    "up": ("up", "green"),
    "down": ("down", "red"),
    "unchecked": ("up", "green"),
    "applied": ("reload", "bold"),
    "failed": ("reload", "red"),
    "attached": ("attach", "green"),
    "lost": ("lost", "red"),
    "began": ("wrong", "red"),
    "ended": ("over", "green"),
    "request": ("http", "cyan"),
}


def watch(
    environment: Environment,
    control: Control,
    query: Mapping[str, str | None],
    *,
    limit: int | None,
    output: Output,
) -> ExitCode:
    """Print events until Ctrl-C, or `limit` of them.

    When the daemon ends, people see what happens once it is back. A program is told by exit code 6: it may
    have missed something.
    """
    gc.enable()
    shown = 0
    try:
        for event in _events(environment, control, query, patient=output is Output.TABLE):
            if event["kind"] == "lost":
                warn(environment, f"{event['count']} events came too fast to be shown")
                continue
            environment.stdout.write(_line(environment, event, output))
            environment.stdout.flush()
            shown += 1
            if shown == limit:
                return ExitCode.DONE
    except KeyboardInterrupt:
        return ExitCode.DONE
    return ExitCode.NO_DAEMON


def _events(
    environment: Environment, control: Control, query: Mapping[str, str | None], *, patient: bool
) -> Iterator[Row]:
    """Events of one daemon, and if `patient` of those after it. Raises where none answers at first."""
    yield from control.stream("/v1/events", **query)
    environment.note(
        "the daemon has ended" + (": waiting for the next one, Ctrl-C leaves" if patient else "")
    )
    while patient:
        time.sleep(AGAIN)
        try:
            control.get("/v1/status")
        except DaemonNotRunning:
            continue
        environment.note("the daemon is back")
        yield from control.stream("/v1/events", **query)
        environment.note("the daemon has ended: waiting for the next one, Ctrl-C leaves")


def _line(environment: Environment, event: Row, output: Output) -> str:
    if output is Output.JSON:
        return json.dumps(event, ensure_ascii=False) + "\n"
    if output is Output.YAML:
        return "---\n" + to_yaml(event)
    told = _flow(event) if event["kind"] in _WORDS else happening(event)
    word, colour = _WORDS.get(event["kind"]) or _CHANGES.get(turn(event), (turn(event), "bold"))
    return f"{event['time'][11:23]} {environment.colour(f'{word:<6}', colour)} {printable(told)}\n"


def _flow(event: Row) -> str:
    route = f"{_named_end(event, 'source')} -> {_named_end(event, 'destination')}"
    to = f" -> {endpoint(event, 'backend')}" if "backend" in event else ""
    return (
        f"{event['protocol']:<4} {route}{to}  {event['reason']}  {event['mapping'] or '-'}  {event['tier']}"
        + (f"  x{event['count']}" if event["count"] > 1 else "")
    )


def _named_end(event: Row, name: str) -> str:
    """One end with the name it goes by: its service, or the host name that was asked for."""
    known = event[f"{name}_service"] or (event["name"] if name == "destination" else "")
    return endpoint(event, name) + (f" ({known})" if known else "")
