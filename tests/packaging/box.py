"""A throw-away Debian with a systemd of its own, booted in a second and gone without a trace.

`systemd-nspawn` starts it from a root that scripts/testroots.sh makes once and that stays as it is:
everything that is written goes into memory. Its network is a namespace of the caller's choice.
"""

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

ROOTS = Path(os.environ.get("MARCHPROXY_TEST_ROOTS") or "/var/tmp/marchproxy-test-roots")  # noqa: S108  # kept over runs
_PREPARE = """\
set -e
# What a machine has and a container lacks: its kernel's sysfs, with a BPF file system as systemd mounts it.
mkdir /run/cgroup
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --rbind /run/cgroup /sys/fs/cgroup
mount -t bpf -o mode=700 bpf /sys/fs/bpf
"""


class Box:
    """A booted system, for as long as the `with` block lasts."""

    def __init__(self, suite: str, network: str, files: Path) -> None:
        """`network` is the name of a namespace; `files` are seen in it as /files, read-only."""
        self._cgroup = _cgroup(f"marchproxy-box-{os.getpid()}-{time.monotonic_ns()}")
        self._log = (files / "boot.log").open("wb")
        command = [
            "systemd-nspawn", "--quiet", f"--directory={root(suite)}", f"--machine={self._cgroup.name}",
            "--volatile=overlay", "--register=no", "--keep-unit", "--boot",
            f"--network-namespace-path=/run/netns/{network}", "--capability=all",
            "--system-call-filter=bpf perf_event_open @keyring", f"--bind-ro={files}:/files",
            "--console=pipe", "--timezone=off", "--kill-signal=SIGRTMIN+3",
        ]  # fmt: skip
        # In a group of its own: two boxes would meet in the one of the machine.
        joined = f"echo $$ >{self._cgroup}/cgroup.procs && exec {shlex.join(command)}"
        environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        environment["SYSTEMD_NSPAWN_API_VFS_WRITABLE"] = "network"
        self._nspawn = subprocess.Popen(
            ["sh", "-c", joined],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=environment,
        )
        try:
            self._leader = self._booted()
            self.ok(_PREPARE)
        except BaseException:
            self.close()
            raise

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run shell commands in it to their end."""
        environment = [
            "env",
            "-i",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "LC_ALL=C.UTF-8",
        ]
        entered = ["nsenter", f"--target={self._leader}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        command = [
            *entered,
            "--cgroup",
            "--",
            *environment,
            "DEBIAN_FRONTEND=noninteractive",
            "bash",
            "-c",
            script,
        ]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, check=False
        )

    def ok(self, script: str) -> str:
        """What the commands print; an assertion with all that they said where they fail."""
        done = self.run(script)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout.strip()

    def journal(self) -> str:
        """What the unit and systemd said about it."""
        return self.run("journalctl --unit=marchproxy --no-pager --output=short-precise --lines=60").stdout

    def until(self, script: str, timeout: float = 20.0) -> str:
        """Run the commands again until they succeed; what they print."""
        deadline = time.monotonic() + timeout
        while (done := self.run(script)).returncode != 0 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert done.returncode == 0, f"never: {script}\n{done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout.strip()

    def close(self) -> None:
        """End it, and all that runs in it."""
        (self._cgroup / "cgroup.kill").write_text("1")
        self._nspawn.send_signal(signal.SIGKILL)
        self._nspawn.wait()
        self._log.close()
        for folder in sorted(self._cgroup.rglob("*"), reverse=True):
            if folder.is_dir():
                _gone(folder)
        _gone(self._cgroup)

    def _booted(self) -> int:
        """The process id of its systemd, once that has started everything."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._nspawn.poll() is None:
            children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
            if children:
                self._leader = int(children[0])
                if self.run("systemctl is-system-running").stdout.strip() in {"running", "degraded"}:
                    return self._leader
            time.sleep(0.05)
        self._log.flush()
        raise AssertionError(f"the box did not boot:\n{Path(self._log.name).read_text(errors='replace')}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def root(suite: str) -> Path:
    """The root of a Debian release; skips where there is none."""
    if not (ROOTS / suite).is_dir():
        pytest.skip(f"there is no root of {suite}; `make boot` makes it, given a mirror of Debian")
    return ROOTS / suite


def _cgroup(name: str) -> Path:
    mounted = Path("/sys/fs/cgroup")
    unified = mounted / "unified"
    folder = (unified if unified.is_dir() else mounted) / name
    folder.mkdir()
    return folder


def _gone(folder: Path) -> None:
    """Remove a control group; what was killed in it may take a moment to leave."""
    deadline = time.monotonic() + 10
    while True:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
