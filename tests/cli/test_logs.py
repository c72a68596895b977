"""`marchproxy logs`; how streams are followed is in test_watch."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.console import Answers, Console, Daemon, chunked

type Start = Callable[[Answers], Daemon]

RECORD: dict[str, Any] = {
    "number": 7,
    "time": "2030-01-01T07:08:09.123Z",
    "level": "warning",
    "process": "daemon",
    "logger": "marchproxy.dataplane.supervisor",
    "flow": 0,
    "message": "tier: eth0: no such interface",
    "exception": "",
}
FAILED = RECORD | {
    "level": "error",
    "process": "worker 1",
    "flow": 4711,
    "message": "no \x1b[2J handoff",
    "exception": "Traceback:\n  ValueError: broken",
}


def test_lines_for_people(console: Console, daemon: Start) -> None:
    server = daemon({"GET /v1/logs": (200, [RECORD, FAILED])})
    assert console.ok("logs").out.splitlines() == [
        "2030-01-01 07:08:09 warning  tier: eth0: no such interface",
        "2030-01-01 07:08:09 error    worker 1: no \\x1b[2J handoff  (flow 4711)",
        "    Traceback:",
        "      ValueError: broken",
    ]
    assert server.asked[0][0] == "GET /v1/logs?level=debug&limit=1000"


def test_json_is_what_the_daemon_says(console: Console, daemon: Start) -> None:
    server = daemon({"GET /v1/logs": (200, [RECORD])})
    result = console.ok("logs", "--level", "error", "--text", "eth0", "--limit", "5", "--output", "json")
    assert result.json == [RECORD]
    assert server.asked[0][0] == "GET /v1/logs?level=error&text=eth0&limit=5"


def test_following_begins_with_the_last_ones(console: Console, daemon: Start) -> None:
    line = json.dumps({"kind": "log", **RECORD}).encode() + b"\n"
    server = daemon({"GET /v1/logs": chunked(line, b'{"kind": "lost", "count": 12}\n')})
    result = console("logs", "--follow", "--output", "json")
    assert [json.loads(each) for each in result.out.splitlines()] == [{"kind": "log", **RECORD}]
    assert "12 log records came too fast" in result.err
    assert result.code == 6
    assert server.asked[0][0] == "GET /v1/logs?follow=1&level=debug&limit=10"


@pytest.mark.parametrize("words", [("--level", "loud"), ("--limit", "0")])
def test_wrong_usage(console: Console, words: tuple[str, ...]) -> None:
    assert console("logs", *words).code == 2


def test_without_a_daemon_there_is_none(console: Console) -> None:
    assert console("logs").code == 6
    assert console("logs", "--follow").code == 6
