"""Command lines of `marchproxy` without the start of an interpreter, which takes longer than most of them.

A process that has imported the command line (`programs/commands.py`) forks for each one: it is the real
command, in a process of its own, with the arguments, environment, folder, network and streams it would have.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from types import TracebackType
from typing import Final, Self

from rig.lifecycle import close_at_exit
from rig.waiting import PATIENCE, RigError

ROOT: Final = Path(__file__).resolve().parent.parent
DIED: Final = -signal.SIGKILL
"""The exit code of a command that ended without one."""


class Commands:
    """The process that forks; started by the first command."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asking: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def run(
        self, words: Sequence[str], *, namespace: Path, env: Mapping[str, str], stdin: str, timeout: float
    ) -> CompletedProcess[str]:
        """Run one command line to its end; `RigError` after `timeout` seconds."""
        request = {
            "words": words,
            "namespace": str(namespace),
            "environment": {**os.environ, **env},
            "folder": os.getcwd(),
        }
        answer, theirs = socket.socketpair()
        # Files in memory: nobody has to read along, no full pipe ever blocks.
        streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
        try:
            _fill(streams[0], stdin.encode())
            with answer:
                with theirs:
                    self._ask(json.dumps(request).encode(), [theirs.fileno(), *streams])
                code = _outcome(answer, f"marchproxy {' '.join(words)}", timeout)
            out, err = (_content(stream) for stream in streams[1:])
        finally:
            for stream in streams:
                os.close(stream)
        return CompletedProcess(["marchproxy", *words], code, out, err)

    def close(self) -> None:
        """End it; commands that run go on."""
        if self._asking is not None and self._process is not None:
            self._asking.close()
            self._process.wait()
            self._asking = self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: bytes, descriptors: list[int]) -> None:
        with self._lock:
            if self._asking is None:
                self._asking = self._start()
            socket.send_fds(self._asking, [request], descriptors)

    def _start(self) -> socket.socket:
        # Messages, not a stream: what is asked stays whole.
        asking, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with asked:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rig.programs.commands"],
                stdin=asked.fileno(),
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )
        close_at_exit(self)
        return asking


COMMANDS: Final = Commands()
"""Of this process."""


def _fill(stream: int, content: bytes) -> None:
    with os.fdopen(os.dup(stream), "wb") as file:
        file.write(content)
    os.lseek(stream, 0, os.SEEK_SET)


def _content(stream: int) -> str:
    os.lseek(stream, 0, os.SEEK_SET)
    with os.fdopen(os.dup(stream), encoding="utf-8") as file:
        return file.read()


def _outcome(answer: socket.socket, command: str, timeout: float) -> int:
    """The exit code."""
    answer.settimeout(PATIENCE)
    with answer.makefile("rb") as lines:
        # Whose number is not known could not be ended.
        pid = int(lines.readline() or 0)
        answer.settimeout(timeout)
        try:
            return int(lines.readline() or DIED)
        except TimeoutError:
            if pid:
                os.kill(pid, signal.SIGKILL)
            raise RigError(f"{command} took longer than {timeout:g} s") from None
