"""`marchproxy flows --follow`."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from marchproxy.client.control import Control
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
    assert console("flows", "--follow").out.splitlines() == [
        f"07:08:09.123 start  tcp  {route}  FORWARDED  cw  tc",
        "07:08:09.123 denied udp  192.0.2.9:40000 (clients) -> [fd00::1]:80 (web)  NO_MAPPING  -  tc",
        f"07:08:09.123 end    tcp  {route}  CLOSED  cw  tc",
    ]


def test_what_audit_lets_through_is_marked(console: Console, daemon: Start) -> None:
    event = DENIED | {"kind": "audited", "verdict": "audit", "count": 7, "destination_service": ""}
    event["name"] = "api.example.com"
    daemon({"GET /v1/events": chunked(json.dumps(event).encode() + b"\n")})
    assert console("flows", "--follow").out == (
        "07:08:09.123 audit  udp  192.0.2.9:40000 (clients) -> [fd00::1]:80 (api.example.com)"
        "  NO_MAPPING  -  tc  x7\n"
    )


def test_the_daemons_end_is_6(console: Console, events: Daemon) -> None:
    result = console("flows", "--follow")
    assert result.code == 6
    assert "the daemon has ended" in result.err


def test_denied_is_asked_of_the_daemon(console: Console, events: Daemon) -> None:
    console("flows", "--follow", "--denied")
    assert events.asked[0][0] == "GET /v1/events?kind=denied%2Caudited"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--source", "192.0.2.0/24"], [DENIED]),
        (["--source", "192.0.2.9"], [DENIED]),
        (["--destination", "fd00::/8"], [DENIED]),
        (["--port", "40000"], list(EVENTS)),
        (["--port", "81"], []),
        (["--protocol", "TCP"], [START, END]),
        (["--reason", "closed"], [END]),
        (["--mapping", "cw"], [START, END]),
        (["--mapping", "cw", "--reason", "FORWARDED"], [START]),
        (["--service", "web"], list(EVENTS)),
        (["--service", "clients"], list(EVENTS)),
        (["--service", "we"], []),
    ],
)
def test_filters_mean_what_they_mean_without_follow(
    console: Console, events: Daemon, flags: list[str], expected: list[dict[str, Any]]
) -> None:
    result = console("flows", "--follow", "--output", "json", *flags)
    assert [json.loads(line) for line in result.out.splitlines()] == expected


@pytest.mark.parametrize("flags", [["--source", "10.0.0.1/8"], ["--port", "99999"]])
def test_filters_that_cannot_be_meant(console: Console, events: Daemon, flags: list[str]) -> None:
    assert console("flows", "--follow", *flags).code == 5


def test_limit_ends_it(console: Console, events: Daemon) -> None:
    result = console("flows", "--follow", "--limit", "2", "--output", "json")
    assert result.code == 0
    assert len(result.out.splitlines()) == 2


def test_events_that_came_too_fast_are_admitted(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/events": chunked(b'{"kind": "lost", "count": 12}\n')})
    assert "12 events" in console("flows", "--follow").err


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
    assert "\x1b" not in console("flows", "--follow").out
