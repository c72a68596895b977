"""Programs that the rig starts."""

import signal
from pathlib import Path

import pytest

from rig.process import Process
from rig.waiting import RigError


def test_output_of_both_streams_is_kept(tmp_path: Path) -> None:
    process = Process(["sh", "-c", "echo out; echo err >&2; exec sleep 60"], log=tmp_path / "log")
    process.expect("err")
    assert process.output() == "out\nerr\n"
    assert process.running
    assert process.stop() == -signal.SIGTERM
    assert not process.running


def test_expecting_from_a_program_that_ends_tells_how(tmp_path: Path) -> None:
    process = Process(["sh", "-c", "echo no such file; exit 3"], log=tmp_path / "log")
    with pytest.raises(RigError, match="ended with 3") as caught:
        process.expect("ready")
    assert caught.value.hint == "no such file"


def test_expecting_in_vain_shows_what_was_said_instead(tmp_path: Path) -> None:
    process = Process(["sh", "-c", "echo starting; exec sleep 60"], log=tmp_path / "log")
    process.expect("starting")
    with pytest.raises(RigError, match="'ready'") as caught:
        process.expect("ready", timeout=0.02)
    assert caught.value.hint == "starting"
    process.kill()


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rig.process.STOP_TIMEOUT", 0.05)
    process = Process(["sh", "-c", "trap '' TERM; echo armed; exec sleep 60"], log=tmp_path / "log")
    process.expect("armed")
    assert process.stop() == -signal.SIGKILL
    assert process.stop() == -signal.SIGKILL


def test_waiting_too_short_is_said(tmp_path: Path) -> None:
    process = Process(["sleep", "60"], log=tmp_path / "log")
    with pytest.raises(RigError, match=r"still runs after 0\.01 s"):
        process.wait(0.01)
    process.kill()
