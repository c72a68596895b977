"""Programs that the rig starts, and that it always ends."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from rig.waiting import RigError, wait_for

STOP_TIMEOUT = 20.0
"""Seconds between the polite request and SIGKILL."""

TAIL = 2000
"""Characters of a program's output that an error message repeats."""


class Process:
    """A running program. Its output goes to a file: nobody has to read it, no full pipe ever blocks it."""

    def __init__(self, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.argv = tuple(argv)
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else {**os.environ, **env},
                # Ctrl-C on the terminal is for whoever holds the rig, which then stops its programs in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id; nsenter replaces itself, so this is the program's own."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    def output(self) -> str:
        """What it has printed so far, stdout and stderr together."""
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended is left alone."""
        if self.running:
            self._popen.send_signal(number)

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Its exit code (negative: the signal that ended it); `RigError` if it still runs after `timeout`."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise RigError(f"{self.argv[-1]} still runs after {timeout:g} s", hint=self.tail()) from None

    def stop(self) -> int:
        """SIGTERM, SIGKILL if that does not help; its exit code. May be called twice."""
        self.signal(signal.SIGTERM)
        try:
            return self._popen.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL; its exit code."""
        self.signal(signal.SIGKILL)
        return self._popen.wait()

    def tail(self) -> str:
        """The end of its output."""
        return self.output()[-TAIL:].strip()

    def expect(self, text: str, *, timeout: float = STOP_TIMEOUT) -> None:
        """Wait until it has printed `text`; `RigError` with its output if it ends or takes too long."""

        def seen() -> bool:
            if text in self.output():
                return True
            if not self.running:
                raise RigError(f"{' '.join(self.argv)} ended with {self.wait()}", hint=self.tail())
            return False

        try:
            wait_for(seen, f"{text!r} from {' '.join(self.argv)}", timeout=timeout)
        except RigError as error:
            raise RigError(error.message, hint=error.hint or self.tail()) from None
