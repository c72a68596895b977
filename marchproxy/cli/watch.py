"""`flows --follow`, `events` and `logs --follow`: what happens, as it happens."""

import gc
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of the daemon: what its rows are, and how one of them looks to people, line ends included."""

    target: str
    what: str
    line: Callable[[Environment, Row], str]


def watch(
    environment: Environment,
    control: Control,
    stream: Stream,
    query: Mapping[str, object],
    *,
    limit: int | None,
    output: Output,
) -> ExitCode:
    """Print what comes until Ctrl-C, or `limit` rows of it.

    When the daemon ends, people see what happens once it is back. A program is told by exit code 6: it may
    have missed something.
    """
    gc.enable()
    shown = 0
    try:
        for row in _rows(environment, control, stream, query, patient=output is Output.TABLE):
            if row["kind"] == "lost":
                warn(environment, f"{row['count']} {stream.what} came too fast to be shown")
                continue
            environment.stdout.write(_drawn(environment, stream, row, output))
            environment.stdout.flush()
            shown += 1
            if shown == limit:
                return ExitCode.DONE
    except KeyboardInterrupt:
        return ExitCode.DONE
    return ExitCode.NO_DAEMON


def _rows(
    environment: Environment,
    control: Control,
    stream: Stream,
    query: Mapping[str, object],
    *,
    patient: bool,
) -> Iterator[Row]:
    """Rows of one daemon, and if `patient` of those after it. Raises where none answers at first."""
    yield from control.stream(stream.target, **query)
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
        yield from control.stream(stream.target, **query)
        environment.note("the daemon has ended: waiting for the next one, Ctrl-C leaves")


def _drawn(environment: Environment, stream: Stream, row: Row, output: Output) -> str:
    if output is Output.JSON:
        return json.dumps(row, ensure_ascii=False) + "\n"
    if output is Output.YAML:
        return "---\n" + to_yaml(row)
    return stream.line(environment, row)


def _line(environment: Environment, event: Row) -> str:
    told = _flow(event) if event["kind"] in _WORDS else happening(event)
    word, colour = _WORDS.get(event["kind"]) or _CHANGES.get(turn(event), (turn(event), "bold"))
    return f"{event['time'][11:23]} {environment.colour(f'{word:<6}', colour)} {printable(told)}\n"


EVENTS = Stream("/v1/events", "events", _line)


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
