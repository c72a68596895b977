"""One daemon for a folder, and a socket that is never in the wrong hands."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from marchproxy.dataplane.runtime import RuntimeDir
from marchproxy.model.errors import Conflict, InvalidValue, MarchproxyError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_and_socket_are_for_owner_and_group(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "marchproxy"
    before = os.umask(0)
    try:
        runtime = RuntimeDir(folder)
        with runtime.open_socket():
            assert (mode(folder), mode(runtime.control_socket)) == (0o750, 0o660)
            assert not (folder / "control.sock.new").exists()
    finally:
        os.umask(before)
    runtime.close()
    assert not runtime.control_socket.exists()


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    RuntimeDir(tmp_path).close()
    assert mode(tmp_path) == 0o700


def test_a_second_daemon_is_told_who_was_first(tmp_path: Path) -> None:
    first = RuntimeDir(tmp_path)
    with pytest.raises(Conflict, match=f"a daemon runs here already, process {os.getpid()}"):
        RuntimeDir(tmp_path)
    first.close()
    RuntimeDir(tmp_path).close()


HOLD = """
import sys, time
from pathlib import Path
from marchproxy.dataplane.runtime import RuntimeDir
runtime = RuntimeDir(Path(sys.argv[1]))
listening = runtime.open_socket()
print("ready", flush=True)
time.sleep(60)
"""


def test_a_killed_daemon_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        with pytest.raises(Conflict, match=f"process {holder.pid}"):
            RuntimeDir(tmp_path)
        holder.kill()
    runtime = RuntimeDir(tmp_path)
    assert runtime.control_socket.is_socket()
    with runtime.open_socket(), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(runtime.control_socket))
    runtime.close()


@pytest.mark.parametrize("name", ["x" * 200, "file/below"])
def test_a_folder_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidValue if len(name) > 100 else MarchproxyError) as caught:
        RuntimeDir(tmp_path / name)
    assert caught.value.hint
