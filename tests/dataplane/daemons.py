"""A daemon as an operator starts it: by command, in a folder of its own, with a manager that listens."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

READY_WITHIN = 40.0
"""Seconds; on a machine that does nothing else it takes half of one."""


class Refused(Exception):
    """The daemon answered with an error."""

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = name


class UnixConnection(http.client.HTTPConnection):
    """The standard library's client over a Unix socket: neither our server's code nor our command's."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=READY_WITHIN)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Daemon:
    """One running `marchproxy run --no-bpf`."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], manager: socket.socket) -> None:
        self.folder = folder
        self.process = process
        self._manager = manager

    def get(self, target: str, **query: object) -> Any:
        """What the control socket says. Raises `Refused`."""
        return self._ask("GET", f"{target}?{urlencode(query)}" if query else target)

    def post(self, target: str, body: object) -> Any:
        """The same, with a document to say first."""
        return self._ask("POST", target, json.dumps(body))

    def _ask(self, method: str, target: str, body: str | None = None) -> Any:
        connection = UnixConnection(self.folder / "run" / "control.sock")
        try:
            connection.request(method, target, body)
            answer = connection.getresponse()
            document = json.load(answer)
        finally:
            connection.close()
        if answer.status >= 400:
            raise Refused(answer.status, document["error"]["name"], document["error"]["message"])
        return document

    def hear(self, wanted: str) -> str:
        """The next message to the service manager that begins with `wanted`."""
        while not (message := self._manager.recv(4096).decode()).startswith(wanted):
            pass
        return message

    def status(self) -> Any:
        """`/v1/status`."""
        return self.get("/v1/status")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """The exit code, once there is one."""
        return self.process.wait(READY_WITHIN)

    def said(self) -> str:
        """Everything on stderr so far."""
        return (self.folder / "log").read_text()


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Variables that keep a daemon and its commands inside `folder`."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    places = {
        "MARCHPROXY_STATE_DIR": str(folder / "state"),
        "MARCHPROXY_RUNTIME_DIR": str(folder / "run"),
        "MARCHPROXY_BPFFS": str(folder / "bpf"),
        "MARCHPROXY_METRICS_LISTEN": "off",
        "PYTHONWARNINGS": "error",
    }
    return {**inherited, **places, **more}


def command(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `marchproxy` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "marchproxy", *arguments],
        check=False,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=READY_WITHIN,
    )


def configure(folder: Path, *mappings: dict[str, Any], services: list[dict[str, Any]]) -> None:
    """Make the store equal to this, by file as an operator would; a daemon that runs takes it over."""
    assert command(folder, "init").returncode == 0
    document = {
        "format": "marchproxy/1",
        "interfaces": [],
        "clusters": [{"name": "default", "services": services, "mappings": list(mappings)}],
    }
    path = folder / "intent.json"
    path.write_text(json.dumps(document))
    done = command(folder, "apply", "-f", str(path), "--yes")
    assert done.returncode == 0, done.stderr


@contextmanager
def launched(folder: Path, *arguments: str, **more: str) -> Generator[Daemon]:
    """Start a daemon without waiting for it; it is killed at the end if it still runs."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    address = folder / f"notify-{len(list(folder.glob('notify-*')))}"
    manager.bind(str(address))
    manager.settimeout(READY_WITHIN)
    with manager, (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "marchproxy", "run", "--no-bpf", *arguments],
            env=environment(folder, NOTIFY_SOCKET=str(address), **more),
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            yield Daemon(folder, process, manager)
        finally:
            process.kill()
            process.wait()


@contextmanager
def serving(folder: Path, *arguments: str, **more: str) -> Generator[Daemon]:
    """Start a daemon and wait until it says that it is ready. No traceback may ever reach its log."""
    with launched(folder, *arguments, **more) as daemon:
        daemon.hear("READY=1")
        yield daemon
    assert "Traceback" not in daemon.said()
