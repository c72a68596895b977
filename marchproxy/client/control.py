"""A client of the daemon's control socket: JSON over HTTP/1.1 on a Unix socket.

http.client and its email parser cost 30 ms of `status`; what is needed of HTTP is below. Responses come with
Content-Length, in chunks, or end with the connection (RFC 9112 section 6.3).
"""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from marchproxy.client.appliance import Appliance
from marchproxy.client.errors import Refused
from marchproxy.model.errors import DaemonNotRunning, MarchproxyError, NotPermitted

ANSWER_SECONDS = 10.0
"""For a question about facts that the daemon has at hand."""
SCAN_SECONDS = 60.0
"""For one that takes a walk over millions of flows, behind those of others."""
APPLY_SECONDS = 120.0
"""For a plan to be compiled and applied: ten thousand mappings on a busy machine."""
_MAX_LINE = 64 * 1024


class Control:
    """The daemon, as far as it answers. Each call is a connection of its own.

    Raises `DaemonNotRunning` where none listens, `NotPermitted` where this user may not ask, and `Refused`
    with the daemon's own words.
    """

    def __init__(self, appliance: Appliance) -> None:
        self._path = appliance.control_socket
        self._command = appliance.command
        self._debug = appliance.debug

    def get(self, target: str, **query: object) -> Any:
        """What the daemon knows. Parameters that are None, False or empty are left out."""
        return self._exchange("GET", _with_query(target, query), None, ANSWER_SECONDS)[0]

    def fetch(self, target: str, **query: object) -> tuple[Any, Mapping[str, str]]:
        """As `get`, of what may take a walk over all flows; with the headers, in small letters."""
        return self._exchange("GET", _with_query(target, query), None, SCAN_SECONDS)

    def post(self, target: str, body: object = None) -> Any:
        """Have the daemon do something, and wait until it has."""
        return self._exchange("POST", target, body, APPLY_SECONDS)[0]

    def delete(self, target: str) -> Any:
        """Have the daemon forget something."""
        return self._exchange("DELETE", target, None, ANSWER_SECONDS)[0]

    def stream(self, target: str, **query: object) -> Iterator[Any]:
        """JSON lines as they come, until the daemon ends: in the middle of one, where it is killed."""
        with self._open("GET", _with_query(target, query), None, ANSWER_SECONDS) as (connection, _, body):
            connection.settimeout(None)
            pending = b""
            for piece in _until_cut_off(body):
                *lines, pending = (pending + piece).split(b"\n")
                yield from (_parse(line) for line in lines if line.strip())

    def pieces(self, target: str, **query: object) -> Iterator[bytes]:
        """What the daemon sends, as it comes, until it ends."""
        with self._open("GET", _with_query(target, query), None, ANSWER_SECONDS) as (connection, _, body):
            connection.settimeout(None)
            yield from body

    def _exchange(
        self, method: str, target: str, body: object, seconds: float
    ) -> tuple[Any, Mapping[str, str]]:
        with self._open(method, target, body, seconds) as (_, headers, pieces):
            return _parse(b"".join(pieces)), headers

    @contextmanager
    def _open(
        self, method: str, target: str, body: object, seconds: float
    ) -> Iterator[tuple[socket.socket, Mapping[str, str], Iterator[bytes]]]:
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        if method == "POST":
            head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        try:
            with self._connect(seconds) as connection, connection.makefile("rb") as reader:
                connection.sendall(f"{head}\r\n".encode("ascii") + content)
                status, headers = _read_head(reader)
                self._debug(f"{self._path}: {method} {target}: {status}")
                pieces = _read_body(reader, headers)
                if status >= 400:
                    raise _refusal(status, b"".join(pieces))
                yield connection, headers, pieces
        except TimeoutError:
            message = f"the daemon did not answer within {seconds:g} seconds"
            raise MarchproxyError(message, hint="its log says what it is doing") from None
        except ConnectionError as error:
            # It is starting in vain, stopping, or was killed: there is none to talk to any more.
            message = f"the daemon ended the conversation: {error.strerror or error}"
            raise DaemonNotRunning(message, hint="start it with: marchproxy run") from None

    def _connect(self, seconds: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(seconds)
            connection.connect(str(self._path))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            connection.close()
            message = f"no daemon answers at {self._path}"
            raise DaemonNotRunning(message, hint="start it with: marchproxy run") from None
        except PermissionError:
            connection.close()
            message = f"this user may not talk to the daemon at {self._path}"
            raise NotPermitted(message, hint=f"run: sudo {self._command}") from None
        except OSError as error:
            connection.close()
            raise MarchproxyError(
                f"{self._path}: {error.strerror or error}", hint="MARCHPROXY_RUNTIME_DIR names its folder"
            ) from None
        return connection


def _with_query(target: str, query: dict[str, object]) -> str:
    given = {name: int(value) if value is True else value for name, value in query.items() if value}
    if not given:
        return target
    from urllib.parse import urlencode

    return f"{target}?{urlencode(given)}"


def _read_head(reader: BinaryIO) -> tuple[int, dict[str, str]]:
    version, _, rest = _line(reader).partition(" ")
    code = rest[:3]
    if not version.startswith("HTTP/1."):
        raise _stranger()
    headers = {}
    while line := _line(reader):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return _number(code, 10), headers


def _read_body(reader: BinaryIO, headers: dict[str, str]) -> Iterator[bytes]:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := _number(_line(reader).partition(";")[0], 16):
            yield _exactly(reader, size)
            _line(reader)
    elif "content-length" in headers:
        yield _exactly(reader, _number(headers["content-length"], 10))
    else:
        while piece := reader.read1(_MAX_LINE):  # type: ignore[attr-defined]  # makefile("rb") is a BufferedReader
            yield piece


def _until_cut_off(pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except ConnectionError:
        return


def _number(text: str, base: int) -> int:
    if not text.isalnum() or not text.isascii():
        raise _stranger()
    try:
        return int(text, base)
    except ValueError:
        raise _stranger() from None


def _stranger() -> MarchproxyError:
    return MarchproxyError("what listens on the control socket does not speak HTTP")


def _line(reader: BinaryIO) -> str:
    line = reader.readline(_MAX_LINE)
    if not line.endswith(b"\n"):
        raise ConnectionResetError("its answer ends early")
    return line.decode("latin-1").rstrip("\r\n")


def _exactly(reader: BinaryIO, size: int) -> bytes:
    data = reader.read(size)
    if len(data) < size:
        raise ConnectionResetError("its answer ends early")
    return data


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data) if data.strip() else None
    except ValueError:
        raise MarchproxyError("the daemon's answer is not JSON") from None


def _refusal(status: int, body: bytes) -> Refused:
    try:
        error = json.loads(body)["error"]
        return Refused(error["name"], error["message"], hint=error.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        return Refused("Error", f"the daemon answered with HTTP status {status}")
