"""`marchproxy reset`."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from marchproxy.cli import reset, unit
from marchproxy.dataplane.kernel import attach
from marchproxy.model.errors import NotPermitted
from tests.cli.console import Answers, Console, Daemon

RUNS: Answers = {"GET /v1/status": (200, {"pid": 4711})}


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is in the kernel; the real one is left alone."""
    there = ["tc_in program on eth0"]

    def detach_all() -> list[str]:
        removed = there.copy()
        there.clear()
        return removed

    monkeypatch.setattr(attach, "detach_all", detach_all)
    return there


@pytest.fixture
def passphrase(tmp_path: Path) -> str:
    """A file with one."""
    (tmp_path / "passphrase").write_text("correct horse\n")
    return str(tmp_path / "passphrase")


def state(console: Console) -> list[str]:
    return sorted(path.name for path in (console.folder / "state").iterdir())


def test_nothing_is_left_and_all_is_named(site: Console) -> None:
    site.ok("service", "set", "web", "--auth", "jwt")
    site.ok("token", "issue", "web")
    (site.folder / "state" / "learned.json").write_text("{}")
    (site.folder / "state" / "notes.txt").write_text("mine")
    result = site.ok("reset", "--yes")
    for name in ("tc_in program on eth0", "marchproxy.db", "secret.key", "learned.json"):
        assert any(line.startswith("removed: ") and line.endswith(name) for line in result.out.splitlines())
    assert state(site) == ["notes.txt"]
    assert "notes.txt is not ours, and was left" in result.err
    assert "init --wizard" in result.err
    assert "does not exist" in site("service", "list").err
    # It begins anew.
    assert site.ok("init").out


def test_a_second_time_there_is_nothing(site: Console) -> None:
    assert site.ok("reset", "--yes", "--output", "json").json[0] == {"name": "tc_in program on eth0"}
    again = site.ok("reset", "--yes")
    assert (again.out, "there was nothing to remove" in again.err) == ("", True)


def test_with_a_backup_it_can_be_had_again(site: Console, tmp_path: Path, passphrase: str) -> None:
    before = site.ok("export").out
    file = str(tmp_path / "last.backup")
    site.ok("reset", "--backup", file, "--passphrase-file", passphrase, "--yes")
    site.ok("restore", file, "--passphrase-file", passphrase, "--yes")
    assert site.ok("export").out == before


def test_a_backup_that_fails_keeps_everything(site: Console, tmp_path: Path, passphrase: str) -> None:
    (tmp_path / "there").write_text("x")
    result = site("reset", "--backup", str(tmp_path / "there"), "--passphrase-file", passphrase, "--yes")
    assert result.code == 4
    site.ok("service", "show", "web")


def test_somebody_at_a_terminal_is_asked_twice(site: Console, tmp_path: Path, passphrase: str) -> None:
    file = tmp_path / "offered.backup"
    typed = f"{file}\nn\n"
    result = site("reset", "--passphrase-file", passphrase, stdin=typed, tty=True)
    assert (result.code, file.exists()) == (1, True)
    site.ok("service", "show", "web")
    assert site("reset", stdin="\ny\n", tty=True).code == 0
    assert state(site) == []


def test_a_script_says_yes(site: Console) -> None:
    assert site("reset").code == 2
    site.ok("service", "show", "web")


def test_beside_a_daemon_it_is_refused(site: Console, daemon: Callable[[Answers], Daemon]) -> None:
    daemon(RUNS)
    result = site("reset", "--yes")
    assert result.code == 4
    assert "process 4711" in result.err
    assert "add --stop" in result.err
    site.ok("service", "show", "web")


def test_a_daemon_is_stopped_where_that_is_asked_for(
    site: Console, daemon: Callable[[Answers], Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = daemon(RUNS)
    killed: list[tuple[int, int]] = []

    def kill(process: int, number: int) -> None:
        killed.append((process, number))
        serving.hang_up()

    monkeypatch.setattr(os, "kill", kill)
    site.ok("reset", "--stop", "--yes")
    assert killed == [(4711, signal.SIGTERM)]
    assert state(site) == []


def test_one_that_does_not_end_keeps_everything(
    site: Console, daemon: Callable[[Answers], Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon(RUNS)
    monkeypatch.setattr(os, "kill", lambda *_: None)
    monkeypatch.setattr(reset, "_PATIENCE", 0.1)
    result = site("reset", "--stop", "--yes")
    assert (result.code, "does not end" in result.err) == (1, True)
    site.ok("service", "show", "web")


def test_the_service_is_stopped_by_systemd(site: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(unit, "is_managed", lambda environment: True)
    monkeypatch.setattr(unit, "is_active", lambda: True)
    monkeypatch.setattr(unit, "call", called.append)
    site.ok("reset", "--stop", "--yes")
    assert called == ["stop"]


def test_who_may_not_touch_the_kernel_removes_nothing(site: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[str]:
        raise NotPermitted("cannot remove it")

    monkeypatch.setattr(attach, "detach_all", refuse)
    assert site("reset", "--yes").code == 7
    site.ok("service", "show", "web")
