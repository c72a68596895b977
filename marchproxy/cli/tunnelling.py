"""What `connect` does on the wire: asks for a tunnel, and copies both ways until both sides are done."""

import os
import select
import socket
import stat
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from marchproxy.model.errors import MarchproxyError, NotPermitted

if TYPE_CHECKING:
    import ssl

    from marchproxy.cli.securing import SecureSocket

PATIENCE = 30.0
"""Seconds for a connection, and for its answer: longer than a proxy takes to find out about a dead host."""
_MAX_HEAD = 65_536
_MAX_LINE = 256
_PIECE = 65_536
_CHALLENGE = "MARCHPROXY_AUTH"
_ALERT = b"\x15\x03"
"""How a TLS alert begins."""
_POLICY = (403, 407, 429)
"""HTTP: the proxy will not; other refusals are about a destination that it cannot reach."""

type Target = tuple[str, int]
type Stream = socket.socket | SecureSocket


@dataclass(frozen=True, slots=True)
class Security:
    """TLS to whoever is dialled."""

    context: "ssl.SSLContext"
    server_name: str | None = None
    """Whom to expect there; None: what is dialled."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A tunnel that stands."""

    socket: Stream
    ahead: bytes = field(default=b"", repr=False)
    """What came with the answer already."""


def by_proxy(proxy: Target, target: Target, token: str, security: Security | None = None) -> Opened:
    """Through an explicit proxy, by HTTP CONNECT. Raises `MarchproxyError`."""
    host, port = target
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if token:
        lines.append(f"Proxy-Authorization: Bearer {token}")
    try:
        request = "\r\n".join((*lines, "", "")).encode("ascii")
    except UnicodeEncodeError:
        raise MarchproxyError(f"{host!r} is no host name") from None
    sock = _dial(proxy, security)
    with _closing_on_failure(sock, proxy):
        sock.sendall(request)
        head, ahead = _read_head(sock)
        status, headers = _parse_head(head)
        if status != 200:
            raise _refused(status, headers, authority, ahead + _rest(sock))
        sock.settimeout(None)
        return Opened(sock, ahead)


def by_preface(listener: Target, token: str, security: Security | None = None) -> Opened:
    """At a listener that is told the token, if there is one, before all else. Raises `MarchproxyError`."""
    sock = _dial(listener, security)
    with _closing_on_failure(sock, listener):
        if not token:
            sock.settimeout(None)
            return Opened(sock)
        sock.sendall(f"MARCHPROXY/1 {token}\n".encode("ascii"))
        answer = _read_line(sock)
        if answer == _CHALLENGE:
            # It takes us for a client of the fleet that waits: we were slow.
            answer = _read_line(sock)
        if answer != "OK":
            reason = answer.removeprefix("ERR ") if answer.startswith("ERR ") else ""
            secure = answer.startswith(_ALERT.decode())
            what = "it speaks TLS: give --tls" if secure else "it speaks another protocol"
            message = f"{listener[0]}:{listener[1]} refused: {reason or what}"
            raise NotPermitted(message, hint="marchproxy flows --denied, on the appliance, says more")
        sock.settimeout(None)
        return Opened(sock)


def relay(opened: Opened, source: int, sink: int) -> None:
    """Copy from descriptor `source` to the tunnel and from the tunnel to `sink`, each to its end.

    Raises `MarchproxyError` where the tunnel broke: what came may be less than all of it.
    """
    _write(sink, opened.ahead)
    sending = threading.Thread(target=_send, args=(opened.socket, source), daemon=True)
    sending.start()
    torn = ""
    while data := _receive(opened.socket):
        if isinstance(data, OSError):
            torn = data.strerror or str(data)
            break
        _write(sink, data)
    if torn:
        raise MarchproxyError(f"the connection broke in the middle: {torn}")
    if os.isatty(source):
        return
    # Whoever feeds us learns that no more comes, and may go on sending.
    _end(sink)
    hung_up = select.poll()
    hung_up.register(opened.socket, 0)
    while sending.is_alive() and not hung_up.poll(100):
        pass


def _receive(sock: Stream) -> bytes | OSError:
    """The next bytes, or why there are none; apart from errors of the sink, which are others."""
    try:
        return sock.recv(_PIECE)
    except OSError as error:
        return error


def _send(sock: Stream, source: int) -> None:
    how = socket.SHUT_WR
    with suppress(OSError):
        while data := _read(source):
            if isinstance(data, OSError):
                # Cut off, and not ended: nobody waits for what may still come.
                how = socket.SHUT_RDWR
                break
            sock.sendall(data)
        sock.shutdown(how)


def _read(source: int) -> bytes | OSError:
    try:
        return os.read(source, _PIECE)
    except OSError as error:
        return error


def _end(sink: int) -> None:
    """Close it. A socket may be the source's as well, and closing one of two descriptors ends nothing."""
    with suppress(OSError):
        if stat.S_ISSOCK(os.fstat(sink).st_mode):
            with socket.socket(fileno=os.dup(sink)) as sock:
                sock.shutdown(socket.SHUT_WR)
    with suppress(OSError):
        os.close(sink)


def _write(sink: int, data: bytes) -> None:
    while data:
        data = data[os.write(sink, data) :]


def _dial(target: Target, security: Security | None) -> Stream:
    where = f"{target[0]}:{target[1]}"
    try:
        sock = socket.create_connection(target, PATIENCE)
    except OSError as error:
        what = error.strerror or str(error)
        raise MarchproxyError(f"{where} cannot be reached: {what}") from None
    if security is None:
        return sock
    from marchproxy.cli.securing import SecureSocket

    with _closing_on_failure(sock, target):
        return SecureSocket(sock, security.context, security.server_name or target[0], where)


class _closing_on_failure:
    """Close the socket where an error leaves the block, and say whose connection it was."""

    def __init__(self, sock: Stream, target: Target) -> None:
        self._sock = sock
        self._target = target

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        self._sock.close()
        where = f"{self._target[0]}:{self._target[1]}"
        if isinstance(error, TimeoutError):
            raise MarchproxyError(f"{where} did not answer within {PATIENCE:g} seconds") from None
        if isinstance(error, OSError):
            raise MarchproxyError(f"{where} ended the connection: {error.strerror or error}") from None


def _read_head(sock: Stream) -> tuple[str, bytes]:
    """The head of an answer, and what came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(_PIECE)
        if not piece or len(data) > _MAX_HEAD:
            raise ConnectionResetError("its answer ends early" if not piece else "its answer does not end")
        data += piece
    head, _, ahead = data.partition(b"\r\n\r\n")
    return head.decode("latin-1"), ahead


def _read_line(sock: Stream) -> str:
    """One line, byte by byte: what follows it is not ours."""
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte and line.startswith(_ALERT):
            break
        if not byte:
            raise ConnectionResetError("its answer ends early")
        line += byte
        if len(line) > _MAX_LINE:
            break
    return line.decode("latin-1").rstrip("\r\n")


def _parse_head(head: str) -> tuple[int, dict[str, str]]:
    first, *rest = head.split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdecimal():
        raise MarchproxyError("what listens there is no HTTP proxy")
    headers = (line.partition(":") for line in rest)
    return int(parts[1]), {name.strip().lower(): value.strip() for name, _, value in headers}


def _rest(sock: Stream) -> bytes:
    """What else a refusal says."""
    data = b""
    with suppress(OSError):
        while len(data) < _MAX_HEAD and (piece := sock.recv(_PIECE)):
            data += piece
    return data


def _refused(status: int, headers: dict[str, str], authority: str, body: bytes) -> MarchproxyError:
    reason = headers.get("x-marchproxy-reason", f"HTTP status {status}")
    details = [
        line.partition(": ")[2] for line in body.decode("utf-8", "replace").splitlines() if "Detail: " in line
    ]
    detail = f": {details[0]}" if details else ""
    message = f"no tunnel to {authority}: {reason}{detail}"
    printed = "".join(character if character.isprintable() else "?" for character in message)
    return NotPermitted(printed) if status in _POLICY else MarchproxyError(printed)
