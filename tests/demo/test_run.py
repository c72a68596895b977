"""`make demo` as a user meets it."""

import subprocess
import sys

import pytest

from demo import run
from demo.screen import Screen
from rig import RigError
from rig.lifecycle import NETNS, PREFIX
from rig.servers import ROOT


@pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "ipv6")
def test_it_shows_everything_and_leaves_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "demo/run.py"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        said, _ = demo.communicate(timeout=60)
        assert demo.returncode == 0, said
        assert not list(NETNS.glob(f"{PREFIX}{demo.pid}-*"))
    for what in (
        "DENY_MAPPING (no-lab)",
        "NO_MAPPING",
        "udp",
        "IPv6",
        "kill -9",
        "the download goes on",
        "Done in",
    ):
        assert what in said
    assert "\x1b" not in said
    assert max(map(len, said.splitlines())) <= 80


def test_without_root_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert run.main() == 1
    assert "sudo make demo" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RigError("the guest was let in", hint="look here"), 1, "look here"),
        (ConnectionResetError(104, "Connection reset by peer"), 1, "Connection reset by peer"),
        (KeyboardInterrupt(), 130, "stopped by you"),
    ],
)
def test_what_went_wrong_is_said_plainly(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    def fail(_: Screen) -> None:
        raise error

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(run, "play", fail)
    assert run.main() == code
    output = capsys.readouterr().out
    assert said in output
    assert "Traceback" not in output
