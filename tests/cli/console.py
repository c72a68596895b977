"""The command line as a test drives it: streams in memory, own folders, a stand-in for the daemon."""

import io
import json
import socket
import threading
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from marchproxy.cli.context import Environment
from marchproxy.cli.main import run


class Screen(io.StringIO):
    """A stream that may pass for a terminal."""

    def __init__(self, *, tty: bool) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        """Whether this one does."""
        return self._tty


class Keyboard(io.TextIOWrapper):
    """Stdin with bytes beneath it, as the real one has."""

    def __init__(self, typed: bytes, *, tty: bool) -> None:
        super().__init__(io.BytesIO(typed), encoding="utf-8")
        self._tty = tty

    def isatty(self) -> bool:
        """Whether somebody types."""
        return self._tty


@dataclass(frozen=True, slots=True)
class Result:
    """What one command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, read as JSON."""
        return json.loads(self.out)


@dataclass(slots=True)
class Console:
    """An operator's shell in front of one appliance."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.variables |= {
            "MARCHPROXY_STATE_DIR": str(self.folder / "state"),
            "MARCHPROXY_RUNTIME_DIR": str(self.folder / "run"),
        }

    def environment(self, *, stdin: bytes = b"", tty: bool = False) -> Environment:
        """Streams in memory; with `tty` all three are terminals."""
        return Environment(
            self.variables,
            stdin=Keyboard(stdin, tty=tty),
            stdout=Screen(tty=tty),
            stderr=Screen(tty=tty),
        )

    def __call__(self, *words: str, stdin: bytes | str = b"", tty: bool = False) -> Result:
        """Run one command line."""
        typed = stdin.encode() if isinstance(stdin, str) else stdin
        environment = self.environment(stdin=typed, tty=tty)
        assert isinstance(environment.stdout, Screen)
        assert isinstance(environment.stderr, Screen)
        # Typer writes help to the process's stdout.
        with redirect_stdout(environment.stdout):
            code = run(words, environment)
        return Result(code, environment.stdout.getvalue(), environment.stderr.getvalue())

    def ok(self, *words: str, stdin: bytes | str = b"") -> Result:
        """Run one command line that has to succeed."""
        result = self(*words, stdin=stdin)
        assert result.code == 0, result
        return result

    def write(self, name: str, content: object) -> str:
        """A file with this text, or with this document as JSON; returns its name."""
        path = self.folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    @property
    def control_socket(self) -> Path:
        """Where the daemon would listen."""
        return self.folder / "run" / "control.sock"


type Answers = Mapping[str, tuple[int, Any] | bytes]
"""`METHOD /path` to status and document, or to the very bytes of the response."""


class Daemon:
    """Answers on a control socket what a test tells it to, and remembers what it was asked."""

    def __init__(self, path: Path, answers: Answers) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.asked: list[tuple[str, Any]] = []
        """`METHOD /target?query` and body."""
        self._answers = answers
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._path = path

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        # Closing does not wake a thread in accept(); shutting down does.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        self._path.unlink()

    def hang_up(self) -> None:
        """End it before the test does: nothing answers any more."""
        self._path.rename(self._path.with_suffix(".gone"))
        self._path = self._path.with_suffix(".gone")

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.sendall(self._answer(connection))

    def _answer(self, connection: socket.socket) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        method, target, _ = head.decode().split("\r\n")[0].split(" ")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0
        )
        while len(body) < length:
            body += connection.recv(65536)
        self.asked.append((f"{method} {target}", json.loads(body) if body else None))
        answer = self._answers[f"{method} {target.partition('?')[0]}"]
        return answer if isinstance(answer, bytes) else response(*answer)


def response(status: int, document: Any) -> bytes:
    """An HTTP response with a JSON body."""
    body = json.dumps(document).encode()
    return b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def chunked(*pieces: bytes) -> bytes:
    """An HTTP response in chunks."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


STATUS: dict[str, Any] = {
    "version": "9.8.7",
    "pid": 4711,
    "started": "2030-01-01T00:00:00.000Z",
    "uptime_s": 3723.5,
    "healthy": True,
    "problems": [],
    "warnings": [],
    "certificates": [],
    "requests": {},
    "sinks": [],
    "revision": {
        "number": 7,
        "sha256": "ab" * 32,
        "applied": "2030-01-01T00:00:01.000Z",
        "applied_ms": 3.5,
    },
    "trial": None,
    "tier": {"name": "kernel", "reason": "BPF is permitted"},
    "interfaces": [{"name": "in0", "role": "inside", "mode": "auto", "attached": "tc", "problem": ""}],
    "listener_count": 1,
    "listeners": [{"address": "10.1.0.1", "port": 80, "protocol": "tcp", "mappings": ["cw"]}],
    "counters": {
        "NO_MAPPING": {"packets": 3, "bytes": 180},
        "FORWARDED": {"packets": 1200, "bytes": 1_500_000},
    },
    "denied": [{"reason": "NO_MAPPING", "mapping": "", "packets": 3, "bytes": 180}],
    "audited": [{"reason": "DENY_MAPPING", "mapping": "later", "packets": 2, "bytes": 120}],
    "limits": [
        {
            "name": "source-packets",
            "passed_packets": 5,
            "passed_bytes": 5000,
            "dropped_packets": 7,
            "dropped_bytes": 7000,
        }
    ],
    "flow_table": [{"name": "flows", "used": 250, "limit": 1000}],
    "lost_events": 0,
    "reloads": 1,
    "failed_reloads": 0,
    "backends": [],
    "names": {},
    "host_names": [],
    "dns": {"listeners": [], "questions": {}, "rebinding": {}},
    "explicit": [],
}
"""What a healthy daemon says about itself, as `dataplane.control.documents` writes it."""
