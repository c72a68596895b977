"""`marchproxy check`."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from marchproxy import bpf
from marchproxy.cli import intent
from marchproxy.model.snapshot import read_snapshot
from tests.cli.console import Answers, Console, Daemon


def test_nothing_wrong(site: Console) -> None:
    site.ok("interface", "add", "eth0", "--role", "inside")
    result = site.ok("check")
    assert (result.out, result.err) == ("", "nothing is wrong\n")
    assert site.ok("check", "--output", "json").json == []


def test_a_warning_is_no_failure(site: Console) -> None:
    site.ok("interface", "add", "eth0", "--role", "inside")
    site.ok("service", "add", "spare", "--address", "10.8.0.1")
    (finding,) = site.ok("check", "--output", "json").json
    assert finding["severity"] == "warning"
    assert "spare" in finding["message"]
    assert finding.keys() == {"name", "severity", "message", "hint"}
    lines = [f"warning  {finding['name']}: {finding['message']}", f"         {finding['hint']}"]
    assert site.ok("check").out.splitlines() == [line for line in lines if line.strip()]


def test_flows_that_cannot_be_carried_over_are_named(site: Console, tmp_path: Path) -> None:
    site.ok("interface", "add", "eth0", "--role", "inside")
    site.variables["MARCHPROXY_BPFFS"] = str(tmp_path)
    for name in (f"v{bpf.ABI}", "v999", "theirs"):
        (tmp_path / name).mkdir()
    result = site.ok("check")
    assert "layout of another version (v999)" in result.err
    assert "they end when its daemon starts" in result.err
    assert result.err.count("layout of another") == 1


def test_host_names_are_what_the_daemon_knows(site: Console, daemon: Callable[[Answers], Daemon]) -> None:
    site.ok("interface", "add", "eth0", "--role", "inside")
    for name in ("known", "lost"):
        site.ok("service", "add", name, "--address", f"{name}.example.com")
    site.ok(*["mapping", "set", "cw", "--from", "clients,known,lost"])
    assert site.ok("check", "--output", "json").json == []
    daemon({"GET /v1/status": (200, {"names": {"known.example.com": ["192.0.2.1"]}})})
    (finding,) = site.ok("check", "--output", "json").json
    assert (finding["name"], finding["message"]) == ("service lost", "lost.example.com resolves to nothing")


def test_errors_come_first_and_fail(site: Console) -> None:
    """Written around the commands, which would refuse it."""
    with intent.opened(site.environment()) as store:
        document = store.snapshot().document()
        document["clusters"][0]["mappings"][0]["listen"] = "10.1.0.1:22"
        store.replace(lambda _: read_snapshot(document), message="by an older version")
    result = site("check", "--output", "json")
    assert result.code == 1
    severities = [finding["severity"] for finding in result.json]
    assert severities == sorted(severities)
    assert "management" in result.json[0]["message"]
    assert site("check").code == 1


def test_a_store_of_an_older_version_is_looked_at_as_it_would_be_after_an_upgrade(console: Console) -> None:
    """The package asks before it restarts the daemon, which is what brings the store up to date."""
    state = console.folder / "state"
    state.mkdir(mode=0o700)
    old = Path(__file__).parents[1] / "store" / "schema_1.sql"
    connection = sqlite3.connect(state / "marchproxy.db")
    connection.executescript(old.read_text())
    connection.close()
    assert console("export").code == 1
    found = console.ok("check", "--output", "json").json
    assert {finding["severity"] for finding in found} == {"warning"}
    assert console("export").code == 1
