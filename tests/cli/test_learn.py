"""`marchproxy learn`."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from marchproxy.policy.observed import to_document
from tests.cli.console import STATUS, Answers, Console, Daemon
from tests.policy.test_propose import seen

type Start = Callable[[Answers], Daemon]

TIMES: dict[str, Any] = {"first": 1_800_000_000.0, "last": 1_800_000_060.0}
ROWS = [
    to_document(seen("10.9.0.1", "192.0.2.7", count=9, source_service="", name="api.example.com", **TIMES)),
    to_document(seen("10.9.0.2", "192.0.2.7", count=2, **TIMES)),
]


def running(*rows: dict[str, Any], missed: int = 0) -> Answers:
    return {
        "GET /v1/learned": (200, {"missed": missed, "observations": list(rows)}),
        "DELETE /v1/learned": (200, {"forgotten": len(rows)}),
        "GET /v1/status": (200, STATUS),
        "POST /v1/reload": (200, {"revision": 3}),
        "POST /v1/preview": (409, {"error": {"name": "Conflict", "message": "not now", "hint": ""}}),
    }


def keep(console: Console, *rows: dict[str, Any]) -> None:
    """What a daemon left behind."""
    document = {"format": "marchproxy-learned/1", "missed": 0, "observations": list(rows)}
    (console.folder / "state" / "learned.json").write_text(json.dumps(document))


def test_show_is_the_daemons_table(site: Console, daemon: Start) -> None:
    daemon(running(*ROWS, missed=3))
    result = site.ok("learn", "show")
    title, first, _ = result.out.splitlines()
    assert title.split()[:4] == ["SOURCE", "DESTINATION", "PROTOCOL", "PORT"]
    assert first.split()[:5] == ["10.9.0.1/32", "192.0.2.7", "(api.example.com)", "tcp", "443"]
    assert "3 more flows found the table full" in result.err
    assert site.ok("learn", "show", "--output", "json").json == ROWS


def test_without_a_daemon_its_file_is_read(site: Console) -> None:
    keep(site, *ROWS)
    assert site.ok("learn", "show", "--output", "json").json == ROWS


def test_a_proposal_can_be_applied_and_then_there_is_nothing_to_propose(site: Console, daemon: Start) -> None:
    daemon(running(*ROWS))
    file = str(site.folder / "learned.yaml")
    result = site.ok("learn", "propose", "-o", file)
    assert result.out == ""
    assert "has 1 mappings: look at it" in result.err
    applied = site.ok("apply", "-f", file)
    assert [line for line in applied.out.splitlines() if not line.startswith(" ")] == [
        "+ service api.example.com",
        "+ service net-10.9.0.0-24",
        "+ mapping net-10.9.0.0-24-to-api.example.com-tcp",
    ]
    names = {row["name"] for row in site.ok("service", "list", "--output", "json").json}
    assert {"clients", "web"} < names, "what was there stays"


def test_json_on_stdout(site: Console, daemon: Start) -> None:
    daemon(running(ROWS[1]))
    document = site.ok("learn", "propose", "--output", "json").json
    assert document == {
        "merge": True,
        "services": [
            {"name": "host-10.9.0.2", "addresses": ["10.9.0.2"]},
            {"name": "host-192.0.2.7", "addresses": ["192.0.2.7"]},
        ],
        "mappings": [
            {
                "name": "host-10.9.0.2-to-host-192.0.2.7-tcp",
                "sources": ["host-10.9.0.2"],
                "destinations": ["host-192.0.2.7"],
                "protocols": ["tcp"],
                "ports": "443",
                "description": "learned from 2027-01-15 to 2027-01-15",
            }
        ],
    }


def test_what_is_allowed_meanwhile_is_not_proposed(site: Console, daemon: Start) -> None:
    daemon(running(ROWS[1]))
    site.ok("apply", "-f", "-", stdin=site.ok("learn", "propose", "--output", "json").out)
    again = site.ok("learn", "propose", "--output", "json")
    assert again.json == {"merge": True, "services": [], "mappings": []}
    assert "nothing to propose" in again.err


def test_what_is_denied_on_purpose_is_not_proposed(site: Console, daemon: Start) -> None:
    daemon(running(ROWS[1] | {"mapping": "never", "reason": "DENY_MAPPING"}))
    result = site.ok("learn", "propose", "--output", "json")
    assert result.json["mappings"] == []
    assert "1 observations that mappings deny on purpose (never)" in result.err


@pytest.mark.parametrize(("group", "service"), [("/8", "net-10.0.0.0-8"), ("16", "net-10.9.0.0-16")])
def test_networks_of_clients_are_as_wide_as_asked_for(
    site: Console, daemon: Start, group: str, service: str
) -> None:
    daemon(running(*(row | {"name": ""} for row in ROWS)))
    document = site.ok("learn", "propose", "--group", group, "--output", "json").json
    assert document["mappings"][0]["sources"] == [service]


@pytest.mark.parametrize(
    "words", [["--group", "x"], ["--group", "0"], ["--group", "129"], ["-o", "/dev/null/x"]]
)
def test_what_cannot_be_meant_is_5(site: Console, daemon: Start, words: list[str]) -> None:
    daemon(running(*ROWS))
    assert site("learn", "propose", *words).code == 5


def test_forget(site: Console, daemon: Start) -> None:
    daemon(running(*ROWS))
    assert site("learn", "forget").code == 2
    assert site.ok("learn", "forget", "--yes").err == "2 observations forgotten\n"


def test_forget_without_a_daemon(site: Console) -> None:
    keep(site, *ROWS)
    assert site.ok("learn", "forget", "--yes").err == "2 observations forgotten\n"
    assert site.ok("learn", "show", "--output", "json").json == []
