"""`flows --follow`: events as they happen."""

import gc
import json
from collections.abc import Callable, Mapping
from typing import Any

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode, warn
from marchproxy.cli.output import Output, to_yaml
from marchproxy.cli.table import Row
from marchproxy.client.control import Control
from marchproxy.client.words import endpoint, printable
from marchproxy.model.address import parse_ip, parse_prefix
from marchproxy.model.ports import parse_port

type Test = Callable[[Row], bool]

_REFUSALS = "denied,audited"
_FLOWS = f"flow-start,flow-end,{_REFUSALS}"
_WORDS = {
    "flow-start": ("start", "green"),
    "flow-end": ("end", "dim"),
    "denied": ("denied", "red"),
    "audited": ("audit", "yellow"),
}


def watch(
    environment: Environment,
    control: Control,
    filters: Mapping[str, str | None],
    *,
    denied: bool,
    limit: int | None,
    output: Output,
) -> ExitCode:
    """Print events until Ctrl-C, `limit` of them, or the daemon's end, which is exit code 6."""
    gc.enable()
    tests = [_TESTS[name](name, text) for name, text in filters.items() if text]
    shown = 0
    try:
        for event in control.stream("/v1/events", kind=_REFUSALS if denied else _FLOWS):
            if event["kind"] == "lost":
                warn(environment, f"{event['count']} events came too fast to be shown")
            elif all(test(event) for test in tests):
                environment.stdout.write(_line(environment, event, output))
                environment.stdout.flush()
                shown += 1
            if shown == limit:
                return ExitCode.DONE
    except KeyboardInterrupt:
        return ExitCode.DONE
    environment.note("the daemon has ended")
    return ExitCode.NO_DAEMON


def _line(environment: Environment, event: Row, output: Output) -> str:
    if output is Output.JSON:
        return json.dumps(event, ensure_ascii=False) + "\n"
    if output is Output.YAML:
        return "---\n" + to_yaml(event)
    word, colour = _WORDS[event["kind"]]
    route = f"{_named_end(event, 'source')} -> {_named_end(event, 'destination')}"
    to = f" -> {endpoint(event, 'backend')}" if "backend" in event else ""
    line = (
        f"{event['protocol']:<4} {route}{to}  {event['reason']}  {event['mapping'] or '-'}  {event['tier']}"
        + (f"  x{event['count']}" if event["count"] > 1 else "")
    )
    return f"{event['time'][11:23]} {environment.colour(f'{word:<6}', colour)} {printable(line)}\n"


def _named_end(event: Row, name: str) -> str:
    """One end with the name it goes by: its service, or the host name that was asked for."""
    known = event[f"{name}_service"] or (event["name"] if name == "destination" else "")
    return endpoint(event, name) + (f" ({known})" if known else "")


def _within(name: str, text: str) -> Test:
    prefix = parse_prefix(text, field=name)
    return lambda event: parse_ip(event[name]) in prefix


def _port(name: str, text: str) -> Test:
    port = parse_port(text)
    return lambda event: port in (event["source_port"], event["destination_port"])


def _named(*keys: str) -> Callable[[str, str], Test]:
    """`cluster/name` is meant by itself and by `name`."""

    def read(name: str, text: str) -> Test:
        return lambda event: any(text in (event[key], event[key].partition("/")[2]) for key in keys)

    return read


def _folded(name: str, text: str) -> Test:
    return lambda event: bool(event[name].lower() == text.lower())


_TESTS: dict[str, Callable[[str, Any], Test]] = {
    "source": _within,
    "destination": _within,
    "port": _port,
    "protocol": _folded,
    "mapping": _named("mapping"),
    "service": _named("source_service", "destination_service"),
    "reason": _folded,
}
