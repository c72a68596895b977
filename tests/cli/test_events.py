"""`marchproxy events`: what is of no flow; the rest is in test_watch."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.console import Answers, Console, Daemon, chunked

type Start = Callable[[Answers], Daemon]

TIME = "2030-01-01T07:08:09.123Z"
BACKEND = {
    "kind": "backend",
    "time": TIME,
    "service": "shop/web",
    "address": "fd00::10",
    "port": 8080,
    "check": "http",
    "state": "down",
    "why": "HTTP 503",
}
RELOAD = {
    "kind": "reload",
    "time": TIME,
    "change": "applied",
    "revision": 5,
    "applied_ms": 28.4,
    "message": "",
}
INTERFACE = {
    "kind": "interface",
    "time": TIME,
    "change": "attached",
    "name": "eth0",
    "role": "inside",
    "attached": "tc",
    "problem": "",
}
PROBLEM = {"kind": "problem", "time": TIME, "change": "began", "component": "names", "message": "no answer"}


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (BACKEND, "down   [fd00::10]:8080 of shop/web: HTTP 503"),
        (BACKEND | {"state": "up", "why": "", "port": 0}, "up     fd00::10 of shop/web"),
        (RELOAD, "reload revision 5 is in force, after 28 ms"),
        (
            RELOAD | {"change": "failed", "message": "port 80 is taken"},
            "reload revision 5 stays in force: port 80 is taken",
        ),
        (INTERFACE, "attach eth0 (inside): tc"),
        (
            INTERFACE | {"change": "lost", "attached": "", "problem": "it is gone"},
            "lost   eth0 (inside): it is gone",
        ),
        (PROBLEM, "wrong  names: no answer"),
        (PROBLEM | {"change": "ended"}, "over   names: no answer"),
        ({"kind": "later", "time": TIME, "what": 1}, 'later  {"kind": "later", "what": 1}'),
    ],
)
def test_lines_for_people(console: Console, daemon: Start, event: dict[str, Any], line: str) -> None:
    daemon({"GET /v1/events": chunked(json.dumps(event).encode() + b"\n")})
    result = console("events", "--limit", "1")
    assert result.out == f"07:08:09.123 {line}\n"
    assert result.code == 0


def test_all_kinds_are_asked_for(console: Console, daemon: Start) -> None:
    server = daemon({"GET /v1/events": chunked(json.dumps(PROBLEM).encode() + b"\n")})
    console("events", "--limit", "1")
    console("events", "--limit", "1", "--kind", "denied,problem", "--service", "web")
    assert [asked for asked, _ in server.asked] == [
        "GET /v1/events?kind=all",
        "GET /v1/events?kind=denied%2Cproblem&service=web",
    ]
