"""`marchproxy doctor`."""

import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.cli.console import Answers, Console, Daemon

STATUS = {
    "pid": 1,
    "version": "1.0",
    "problems": ["tier: eth7 is gone"],
    "revision": {"number": 1, "sha256": ""},
    "tier": {"name": "sockets", "reason": ""},
    "interfaces": [],
    "host_names": [],
    "names": {},
}


def test_without_a_daemon_it_says_what_to_do(site: Console) -> None:
    result = site("doctor")
    assert result.code == 1
    first, seen, fix = result.out.splitlines()[:3]
    assert first.startswith("error    daemon: no daemon answers")
    assert seen.startswith("         seen: asked at /")
    assert fix == "         marchproxy run"
    assert result.out.splitlines()[-1].endswith("checks are fine; -v shows them")


def test_findings_as_a_document(site: Console) -> None:
    result = site("doctor", "--output", "json")
    assert result.code == 1
    findings = result.json
    assert all(finding.keys() == {"name", "severity", "message", "evidence", "fix"} for finding in findings)
    assert {finding["severity"] for finding in findings} <= {"ok", "warning", "error"}
    (store,) = (finding for finding in findings if finding["name"] == "store")
    assert store["severity"] == "ok"


def test_without_a_store_everything_else_is_looked_at(console: Console) -> None:
    findings = console("doctor", "--output", "json").json
    (store,) = (finding for finding in findings if finding["name"] == "store")
    assert (store["severity"], store["fix"]) == ("error", "marchproxy init")
    assert len(findings) > 5


def test_what_the_daemon_complains_about(site: Console, daemon: Callable[[Answers], Daemon]) -> None:
    daemon({"GET /v1/status": (200, STATUS)})
    result = site("doctor", "-v")
    assert result.code == 1
    assert "error    daemon: tier: eth7 is gone" in result.out
    assert "ok       store: what is configured can be read" in result.out


def test_an_archive_for_those_who_help(
    site: Console, daemon: Callable[[Answers], Daemon], tmp_path: Path
) -> None:
    daemon({"GET /v1/status": (200, STATUS), "GET /v1/flows": (200, []), "GET /v1/logs": (200, [])})
    path = tmp_path / "support.tar.gz"
    result = site("doctor", "--bundle", str(path))
    assert "look through it before you send it to anybody" in result.err
    with tarfile.open(path) as archive:
        held = {entry.name.partition("/")[2]: archive.extractfile(entry) for entry in archive}
    assert {
        "doctor.json",
        "status.json",
        "export.json",
        "flows.json",
        "logs.json",
        "environment.json",
    } <= held.keys()
    again = site("doctor", "--bundle", str(path))
    assert (again.code, "exists already" in again.err) == (4, True)
