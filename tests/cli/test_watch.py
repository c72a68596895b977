"""`marchproxy flows --follow`."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from marchproxy.cli import watch
from marchproxy.client.control import Control
from marchproxy.model.errors import DaemonNotRunning
from tests.cli.console import Answers, Console, Daemon, chunked
from tests.cli.test_flows import FLOW, REFUSED

type Start = Callable[[Answers], Daemon]

START = {"kind": "flow-start", **FLOW}
END = {"kind": "flow-end", **FLOW, "reason": "CLOSED"}
DENIED = {"kind": "denied", **REFUSED, "source": "192.0.2.9", "destination": "fd00::1", "protocol": "udp"}
EVENTS = (START, DENIED, END)


@pytest.fixture
def events(daemon: Start) -> Daemon:
    """A daemon that tells three events and ends."""
    lines = [json.dumps(event).encode() + b"\n" for event in EVENTS]
    return daemon({"GET /v1/events": chunked(b"\n", *lines)})


def test_json_is_one_object_a_line(console: Console, events: Daemon) -> None:
    result = console("flows", "--follow", "--output", "json")
    assert [json.loads(line) for line in result.out.splitlines()] == list(EVENTS)


def test_yaml_is_one_document_an_event(console: Console, events: Daemon) -> None:
    result = console("flows", "--follow", "--output", "yaml")
    assert list(yaml.safe_load_all(result.out)) == list(EVENTS)


def test_lines_for_people(console: Console, events: Daemon) -> None:
    route = "10.1.0.5:40000 (clients) -> 10.1.0.1:80 (web) -> [fd00::10]:8080"
    assert console("flows", "--follow", "--limit", "3").out.splitlines() == [
        f"07:08:09.123 start  tcp  {route}  FORWARDED  cw  tc",
        "07:08:09.123 denied udp  192.0.2.9:40000 (clients) -> [fd00::1]:80 (web)  NO_MAPPING  -  tc",
        f"07:08:09.123 end    tcp  {route}  CLOSED  cw  tc",
    ]


def test_what_audit_lets_through_is_marked(console: Console, daemon: Start) -> None:
    event = DENIED | {"kind": "audited", "verdict": "audit", "count": 7, "destination_service": ""}
    event["name"] = "api.example.com"
    daemon({"GET /v1/events": chunked(json.dumps(event).encode() + b"\n")})
    assert console("flows", "--follow", "--limit", "1").out == (
        "07:08:09.123 audit  udp  192.0.2.9:40000 (clients) -> [fd00::1]:80 (api.example.com)"
        "  NO_MAPPING  -  tc  x7\n"
    )


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_the_daemons_end_is_6_for_programs(console: Console, events: Daemon, output: str) -> None:
    result = console("flows", "--follow", "--output", output)
    assert result.code == 6
    assert "the daemon has ended" in result.err


def test_people_see_what_happens_once_the_daemon_is_back(
    console: Console, daemon: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = iter(([START], [DENIED, KeyboardInterrupt()]))
    looks = iter((DaemonNotRunning("none"), None))

    def stream(self: Control, target: str, **query: object) -> Iterator[Any]:
        for event in next(streams):
            if isinstance(event, BaseException):
                raise event
            yield event

    def get(self: Control, target: str, **query: object) -> None:
        if error := next(looks):
            raise error

    monkeypatch.setattr(Control, "stream", stream)
    monkeypatch.setattr(Control, "get", get)
    monkeypatch.setattr(watch, "AGAIN", 0)
    result = console("flows", "--follow")
    assert result.code == 0
    assert [line.split()[1] for line in result.out.splitlines()] == ["start", "denied"]
    assert "waiting for the next one" in result.err
    assert "the daemon is back" in result.err


def test_where_there_is_no_daemon_nobody_waits(console: Console) -> None:
    assert console("flows", "--follow").code == 6


def test_denied_is_asked_of_the_daemon(console: Console, events: Daemon) -> None:
    console("flows", "--follow", "--denied", "--limit", "1")
    assert events.asked[0][0] == "GET /v1/events?kind=denied%2Caudited"


def test_filters_are_the_daemons_to_apply(console: Console, events: Daemon) -> None:
    console(
        *("flows", "--follow", "--limit", "1", "--source", "192.0.2.0/24", "--destination", "fd00::1"),
        *("--port", "80", "--protocol", "udp", "--mapping", "cw", "--service", "web", "--reason", "IDLE"),
        *("--text", "10.1"),
    )
    assert events.asked[0][0] == (
        "GET /v1/events?kind=flow-start%2Cflow-end%2Cdenied%2Caudited&source=192.0.2.0%2F24"
        "&destination=fd00%3A%3A1&port=80&protocol=udp&mapping=cw&service=web&reason=IDLE&text=10.1"
    )


def test_a_filter_that_cannot_be_meant_is_5(console: Console, daemon: Start) -> None:
    error = {"name": "InvalidValue", "message": "port: '99999' is not valid", "hint": ""}
    daemon({"GET /v1/events": (400, {"error": error})})
    assert console("flows", "--follow", "--port", "99999").code == 5


def test_limit_ends_it(console: Console, events: Daemon) -> None:
    result = console("flows", "--follow", "--limit", "2", "--output", "json")
    assert result.code == 0
    assert len(result.out.splitlines()) == 2


def test_events_that_came_too_fast_are_admitted(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/events": chunked(b'{"kind": "lost", "count": 12}\n')})
    assert "12 events" in console("flows", "--follow", "--output", "json").err


def test_ctrl_c_is_a_normal_end(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Control, target: str, **query: object) -> Iterator[Any]:
        yield START
        raise KeyboardInterrupt

    monkeypatch.setattr(Control, "stream", interrupted)
    result = console("flows", "--follow")
    assert result.code == 0
    assert len(result.out.splitlines()) == 1


def test_hostile_names_do_not_reach_the_terminal(console: Console, daemon: Start) -> None:
    event = {**DENIED, "mapping": "\x1b[2Jx"}
    daemon({"GET /v1/events": chunked(json.dumps(event).encode() + b"\n")})
    assert "\x1b" not in console("flows", "--follow", "--limit", "1").out
