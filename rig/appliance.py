"""The real `marchproxy` in the middle host."""

import json
import socket
import sys
from collections.abc import Mapping
from subprocess import CompletedProcess
from types import TracebackType
from typing import Any, Self

from rig.commands import COMMANDS
from rig.host import expect_success
from rig.lifecycle import BPFFS, close_at_exit, remove_tree
from rig.network import Rig
from rig.process import Process
from rig.servers import ROOT
from rig.waiting import RigError, wait_for

READY_TIMEOUT = 40.0
CLI_TIMEOUT = 60.0
COMMAND = (sys.executable, "-m", "marchproxy")


class Appliance:
    """One appliance with directories of its own, so that several run side by side; removed at the end."""

    def __init__(self, rig: Rig, *, name: str = "appliance", command: tuple[str, ...] = COMMAND) -> None:
        """Prepare it; nothing runs yet. `name` tells it from others in the rig, `command` calls it."""
        self.host = rig.middle
        self.command = command
        self.bpffs = BPFFS / f"{rig.name}-{name}"
        self.state = rig.files / name / "state"
        self.runtime = rig.files / name / "run"
        self.env = {
            "MARCHPROXY_STATE_DIR": str(self.state),
            "MARCHPROXY_RUNTIME_DIR": str(self.runtime),
            "MARCHPROXY_BPFFS": str(self.bpffs),
            "PYTHONPATH": str(ROOT),
        }
        self.daemon: Process | None = None
        for folder in (self.state, self.runtime):
            folder.mkdir(mode=0o700, parents=True)
        close_at_exit(self)

    def cli(self, *words: str, check: bool = True, stdin: str = "") -> CompletedProcess[str]:
        """Run the real command to its end; `RigError` with what it said where it fails and `check`."""
        if self.command != COMMAND:
            return self.host.run([*self.command, *words], env=self.env, check=check, stdin=stdin)
        done = COMMANDS.run(words, namespace=self.host.path, env=self.env, stdin=stdin, timeout=CLI_TIMEOUT)
        if check:
            expect_success(done)
        return done

    def json(self, *words: str, check: bool = True) -> Any:
        """What a command prints with `--output json`."""
        return json.loads(self.cli(*words, "--output", "json", check=check).stdout)

    def configure(self, document: Mapping[str, Any]) -> None:
        """Make everything that is configured equal to `document`, which has the form of `export`."""
        file = self.state.parent / "configuration.json"
        file.write_text(json.dumps(document))
        self.cli("apply", "-f", str(file), "--yes")

    def start(self, *options: str) -> None:
        """Start `marchproxy run` with `options`, and wait until it serves."""
        self.spawn(*options)
        self.wait_ready()

    def spawn(self, *options: str) -> Process:
        """Start `marchproxy run` without waiting."""
        self.daemon = self.host.popen([*self.command, "run", *options], env=self.env)
        return self.daemon

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Wait until `status` says that it serves; `RigError` with its log if the daemon ends before."""
        daemon = self._running()

        def serves() -> bool:
            if not daemon.running:
                raise RigError(f"marchproxy run ended with {daemon.wait()}", hint=daemon.tail())
            # Each command that finds nobody takes from the daemon the time that it needs to start.
            return self._listens() and self.cli("status", check=False).returncode in {0, 1}

        wait_for(serves, "marchproxy run to serve", timeout=timeout)

    def stop(self) -> int:
        """SIGTERM; its exit code. Programs, pins and flows stay in the kernel."""
        return self._running().stop()

    def kill9(self) -> None:
        """SIGKILL, as a crash would."""
        self._running().kill()

    def restart(self, *options: str) -> None:
        """Stop it, and start it again."""
        self.stop()
        self.start(*options)

    def detach(self) -> None:
        """Stop the daemon and take everything out of the kernel; it can be started again."""
        if self.daemon is not None:
            self.daemon.stop()
            self.daemon = None
            self.cli("detach", "--yes", check=False)

    def close(self) -> None:
        """Detach it, and remove the pins whatever became of that. May be called twice."""
        self.detach()
        remove_tree(self.bpffs)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self.runtime / "control.sock")) == 0

    def _running(self) -> Process:
        if self.daemon is None:
            raise RigError("the appliance was not started")
        return self.daemon

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
