"""`marchproxy status`."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.console import STATUS, Answers, Console, Daemon

type Start = Callable[[Answers], Daemon]

SICK = STATUS | {"healthy": False, "problems": ["tier: in0 has vanished", "names: db.example.com"]}


def test_without_a_daemon_it_is_6(console: Console) -> None:
    result = console("status")
    assert (result.code, result.out) == (6, "")
    assert "marchproxy run" in result.err


def test_document_has_what_scripts_rely_on(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/status": (200, STATUS)})
    document = console.ok("status", "--output", "json").json
    assert document["version"] == "9.8.7"
    assert document["revision"] == 7
    assert document["sha256"] == "ab" * 32
    assert document["tier"] == "kernel"
    assert document["tier_reason"] == "BPF is permitted"
    assert document["interfaces"] == STATUS["interfaces"]
    assert document["counters"]["FORWARDED"] == {"packets": 1200, "bytes": 1_500_000}
    assert document["flow_table"] == [{"name": "flows", "used": 250, "limit": 1000}]
    assert document["healthy"] is True


@pytest.mark.parametrize(("document", "code"), [(STATUS, 0), (SICK, 1)])
@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_the_code_says_whether_something_is_wrong(
    console: Console, daemon: Start, document: dict[str, Any], code: int, output: str
) -> None:
    daemon({"GET /v1/status": (200, document)})
    assert console("status", "--output", output).code == code


def test_one_screen_for_people(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/status": (200, STATUS)})
    assert console.ok("status").out.splitlines() == [
        "MarchProxy 9.8.7: serving, up 1h 2m, process 4711",
        "revision 7, applied 2030-01-01T00:00:01.000Z",
        "tier kernel: BPF is permitted",
        "listeners: 1, host names: 0",
        "",
        "INTERFACE  ROLE    MODE  ATTACHED  PROBLEM",
        "in0        inside  auto  tc        -",
        "",
        "REASON      PACKETS  BYTES   MEANING",
        "FORWARDED      1200  1.5 MB  carried by a flow",
        "NO_MAPPING        3  180 B   no mapping allows it",
        "",
        "VERDICT  REASON        MAPPING  PACKETS  BYTES",
        "deny     NO_MAPPING    -              3  180 B",
        "audit    DENY_MAPPING  later          2  120 B",
        "",
        "LIMIT           PASSED  BYTES   DROPPED  DROPPED BYTES",
        "source-packets       5  5.0 kB        7  7.0 kB",
        "",
        "TABLE  USED  LIMIT  FILL",
        "flows   250   1000  25%",
    ]


def test_problems_come_first(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/status": (200, SICK)})
    lines = console("status").out.splitlines()
    assert "something is wrong" in lines[0]
    assert lines[1:3] == ["  ! tier: in0 has vanished", "  ! names: db.example.com"]


def test_a_fresh_appliance_shows_no_empty_tables(console: Console, daemon: Start) -> None:
    nothing: dict[str, Any] = {
        "interfaces": [],
        "counters": {},
        "denied": [],
        "audited": [],
        "limits": [],
        "flow_table": [],
    }
    daemon({"GET /v1/status": (200, STATUS | nothing)})
    assert len(console.ok("status").out.splitlines()) == 4


def test_names_that_fail_and_dns_listeners_are_shown(console: Console, daemon: Start) -> None:
    good = {"name": "ok.example.com", "state": "resolved", "error": "", "since": "", "address_count": 2}
    bad = {
        "name": "db.example.com",
        "state": "failing",
        "error": "the name does not exist",
        "since": "2030-01-01T00:00:00.000Z",
        "address_count": 1,
    }
    dns = {
        "listeners": [{"bind": "10.1.0.1:53", "interfaces": ["in0", "lo"]}],
        "questions": {},
        "rebinding": {},
    }
    daemon({"GET /v1/status": (200, SICK | {"host_names": [bad, good], "dns": dns})})
    shown = console("status").out
    assert "dns 10.1.0.1:53: for in0, lo" in shown
    assert "the name does not exist" in shown
    assert "ok.example.com" not in shown


def test_events_that_were_lost_are_admitted(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/status": (200, STATUS | {"lost_events": 12})})
    assert "events that came too fast to be told, counted all the same: 12" in console.ok("status").out


def test_a_trial_says_how_long_it_has(console: Console, daemon: Start) -> None:
    trial = {"revision": 7, "previous": 6, "deadline": "2030-01-01T00:01:00.000Z", "remaining_s": 41.6}
    daemon({"GET /v1/status": (200, STATUS | {"trial": trial})})
    assert "revision 7 goes back to 6 in 42 s, unless: marchproxy confirm" in console.ok("status").out


def test_certificates_and_warnings_have_their_lines(console: Console, daemon: Start) -> None:
    row = {
        "name": "proxy",
        "hosts": ["a.example", "10.0.0.1"],
        "expires": "2030-01-01T00:00:00.000Z",
        "usable": True,
    }
    warned = STATUS | {"warnings": ["certificates: certificate proxy expires"], "certificates": [row]}
    daemon({"GET /v1/status": (200, warned)})
    lines = console.ok("status").out.splitlines()
    assert lines[1] == "  certificates: certificate proxy expires"
    place = next(number for number, line in enumerate(lines) if line.startswith("CERTIFICATE"))
    assert lines[place + 1].split() == ["proxy", "a.example,", "10.0.0.1", "2030-01-01T00:00:00.000Z", "yes"]


def test_where_logs_go_has_a_line_each(console: Console, daemon: Start) -> None:
    sink = {"cluster": "default", "kind": "syslog", "target": "udp://192.0.2.5:514", "problem": ""}
    counts = {"sent": 812, "lost": {"full": 3, "refused": 2, "unsent": 0}, "waiting": 7}
    daemon({"GET /v1/status": (200, STATUS | {"sinks": [sink | counts]})})
    said = "syslog of cluster default to udp://192.0.2.5:514: 812 sent, 7 waiting, 5 lost"
    assert said in console.ok("status").out.splitlines()
