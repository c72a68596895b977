"""Nothing survives its owner for longer than until the next rig."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rig.lifecycle import NETNS, PREFIX, sweep, unique_name
from rig.servers import ROOT
from rig.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.requires("root", "netns", "veth")

HOLDER = """
import sys, time
from rig import Rig
rig = Rig()
sleeper = rig.client.popen(["sleep", "60"])
print(rig.name, rig.files, sleeper.pid, flush=True)
time.sleep(60)
"""


def start_holder() -> tuple[subprocess.Popen[str], str, Path, int]:
    """A process that holds a rig: itself, the rig's name and files, and the id of a program in it."""
    argv = [sys.executable, "-c", HOLDER]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    assert process.stdout is not None
    name, files, pid = process.stdout.readline().split()
    return process, name, Path(files), int(pid)


def test_ctrl_c_does_not_wait_for_what_was_called_in_a_host() -> None:
    code = "import time, rig; r = rig.Rig(); print(r.name, flush=True); r.client.call(time.sleep, 60)"
    argv = [sys.executable, "-c", code]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT
    assert not list(NETNS.glob(f"{name}*"))


def runs(pid: int) -> bool:
    """Whether a process lives (one that waits to be reaped does not)."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_names_are_unique_and_tell_whose_they_are() -> None:
    first, second = unique_name(), unique_name()
    assert first != second
    assert first.startswith(f"{PREFIX}{os.getpid()}-")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_process_told_to_end_takes_its_rig_along(number: signal.Signals) -> None:
    process, name, files, pid = start_holder()
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == (-signal.SIGINT if number == signal.SIGINT else 128 + number)
    assert not list(NETNS.glob(f"{name}*"))
    assert not files.exists()
    assert not runs(pid)


def test_what_a_killed_process_left_is_swept_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rig.lifecycle.BPFFS", tmp_path)
    process, name, files, pid = start_holder()
    pins = tmp_path / name
    (pins / "v1").mkdir(parents=True)
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert runs(pid)
    assert {str(files), str(pins), str(NETNS / f"{name}-client")} <= set(sweep())
    assert not list(NETNS.glob(f"{name}*"))
    assert not files.exists()
    assert not pins.exists()
    wait_for(lambda: not runs(pid), "the program to end")


def test_sweeping_spares_the_living_and_what_is_not_ours() -> None:
    folder = Path(tempfile.gettempdir())
    mine, foreign = folder / f"{unique_name()}-x", folder / f"{PREFIX}notes"
    try:
        mine.mkdir()
        foreign.mkdir(exist_ok=True)
        sweep()
        assert mine.exists()
        assert foreign.exists()
    finally:
        mine.rmdir()
        foreign.rmdir()
