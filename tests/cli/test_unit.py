"""The service that systemd runs, as a command sees it. What it does there is tested where it boots."""

import os
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from marchproxy.cli import unit
from marchproxy.model.errors import MarchproxyError
from tests.cli.console import Console

type Said = list[tuple[str, ...]]


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Said:
    """A machine with systemd, and what was asked of it."""
    asked: Said = []

    def answer(*words: str) -> CompletedProcess[str]:
        asked.append(words)
        said = {"show": "loaded\n", "is-active": "active\n"}.get(words[0], "")
        return CompletedProcess(words, 1 if words[0] == "restart" else 0, said, "it is broken\n")

    monkeypatch.setattr(unit, "_systemctl", answer)
    monkeypatch.setattr(unit, "_BOOTED", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return asked


def test_an_appliance_in_folders_of_its_own_is_not_the_service(console: Console, systemd: Said) -> None:
    assert not unit.is_managed(console.environment())
    assert systemd == []
    console.variables.clear()
    assert unit.is_managed(console.environment())
    assert unit.is_active()


def test_without_systemd_there_is_none(
    console: Console, systemd: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    console.variables.clear()
    monkeypatch.setattr(unit, "_BOOTED", tmp_path / "not there")
    assert not unit.is_managed(console.environment())


def test_what_systemd_says_when_it_fails(systemd: Said) -> None:
    unit.call("start")
    with pytest.raises(MarchproxyError, match="failed: it is broken") as refused:
        unit.call("restart")
    assert refused.value.hint == "journalctl --unit marchproxy.service"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "X=22,80\n"),
        ("A=1", "A=1\nX=22,80\n"),
        ("# ports\n#X=22\n\nA=1\n", "# ports\nX=22,80\n\nA=1\n"),
        ("#X=22\nX=23\nX=24\nXY=1\n", "#X=22\nX=23\nX=22,80\nXY=1\n"),
    ],
)
def test_a_variable_of_the_service(tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "marchproxy.env"
    file.write_text(before)
    file.chmod(0o640)
    unit.write_variable("X", "22,80", file)
    assert file.read_text() == after
    assert file.stat().st_mode & 0o777 == 0o640
    assert unit.read_variable("X", file) == "22,80"
    assert [path.name for path in tmp_path.iterdir()] == ["marchproxy.env"]


def test_what_the_file_does_not_say(tmp_path: Path) -> None:
    file = tmp_path / "marchproxy.env"
    assert unit.read_variable("X", file) is None
    file.write_text("#X=1\nY='2'\n")
    assert (unit.read_variable("X", file), unit.read_variable("Y", file)) == (None, "2")
    with pytest.raises(MarchproxyError, match="cannot be changed"):
        unit.write_variable("X", "1", tmp_path)
