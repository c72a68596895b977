"""What `apply --dry-run` says about running flows."""

import json
from collections.abc import Callable
from typing import Any

from tests.cli.conftest import SITE
from tests.cli.console import Answers, Console, Daemon
from tests.cli.test_flows import FLOW

type Start = Callable[[Answers], Daemon]

SHUT: dict[str, Any] = SITE | {"mappings": []}
CUT = FLOW | {"cut_reason": "NO_MAPPING", "cut_by": ""}
PREVIEW = {"cut": 1, "looked_at": 40, "complete": True, "unresolved": [], "flows": [CUT]}


def dry_run(console: Console, *more: str) -> Any:
    return console.ok("apply", "-f", console.write("shut.json", SHUT), "--dry-run", *more)


def test_the_daemon_is_asked_about_the_very_changes(site: Console, daemon: Start) -> None:
    server = daemon({"POST /v1/preview": (200, PREVIEW)})
    result = dry_run(site, "--output", "json").json
    assert result["cuts"] == PREVIEW
    ((_, proposal),) = server.asked
    assert proposal["changes"] == result["changes"]
    assert proposal["sha256"] == site.ok("revision", "list", "--output", "json").json[0]["sha256"]


def test_people_read_how_many_and_which(site: Console, daemon: Start) -> None:
    daemon({"POST /v1/preview": (200, PREVIEW)})
    lines = dry_run(site).out.splitlines()
    assert "cuts 1 of 40 running flows" in lines
    assert lines[-1].split()[:4] == ["10.1.0.5:40000", "10.1.0.1:80", "tcp", "established"]
    assert lines[-1].split()[-2:] == ["NO_MAPPING", "-"]


def test_a_long_list_is_cut_and_counted(site: Console, daemon: Start) -> None:
    many = PREVIEW | {"cut": 2500, "complete": False, "flows": [CUT] * 1000, "unresolved": ["db.example.com"]}
    daemon({"POST /v1/preview": (200, many)})
    result = dry_run(site)
    assert "cuts 2500 of 40 running flows that were looked at, of more" in result.out
    assert result.out.splitlines()[-1] == "and 2480 more"
    assert "db.example.com" in result.err


def test_without_a_daemon_it_is_not_known(site: Console) -> None:
    result = dry_run(site, "--output", "json")
    assert result.json["cuts"] is None
    assert "cannot be known: no daemon answers" in result.err


def test_a_daemon_behind_the_store_cannot_know(site: Console, daemon: Start) -> None:
    error = {"name": "Conflict", "message": "the daemon carries out revision 1", "hint": ""}
    daemon({"POST /v1/preview": (409, {"error": error})})
    result = dry_run(site)
    assert result.code == 0
    assert "cannot be known: the daemon carries out revision 1" in result.err


def test_what_changes_nothing_cuts_nothing_and_asks_nobody(site: Console) -> None:
    result = site.ok("apply", "-f", "-", "--dry-run", "--output", "json", stdin=json.dumps(SITE))
    assert result.json["cuts"]["cut"] == 0
    assert result.err == ""
