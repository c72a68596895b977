"""Asking one server over HTTP, with bounds on what it may answer and on how long it may take.

No redirect is followed, for what is trusted is the address given.
"""

import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from marchproxy.model.errors import MarchproxyError

PATIENCE = 10.0
"""Seconds for each step of a request."""
WHOLE = 30.0
"""Seconds for all steps of one request, from the connection on: a server may send a byte at a time."""
_LONGEST = 1024 * 1024

type Document = dict[str, Any]


class SourceFailed(MarchproxyError):
    """No certificate came; the message says why, and holds no secret."""

    def __init__(self, message: str, *, hint: str = "", again: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.again = again
        """Seconds after which the server wants to be asked again; 0: it has not said."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    fields: Mapping[str, str]
    """By name in small letters."""
    body: bytes
    """At most 1 MiB."""


class Server:
    """Asks one server, a connection for each request."""

    def __init__(self, url: str, ca: str) -> None:
        self._parts = urlsplit(url)
        self._ca = ca
        self.shown = f"{self._parts.scheme}://{self._parts.netloc}"

    def exchange(
        self, method: str, target: str, fields: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        """Whatever is answered. Raises `SourceFailed` where nothing is, or too much, or too slowly."""
        connection = self._connection()
        try:
            connection.connect()
            with _ended_after(WHOLE, connection.sock):
                if isinstance(connection.sock, ssl.SSLSocket):
                    connection.sock.do_handshake()
                headers = {"User-Agent": "marchproxy", **fields}
                connection.request(method, self._parts.path.rstrip("/") + target, body, headers)
                with connection.getresponse() as answer:
                    raw = answer.read(_LONGEST + 1)
        except (OSError, HTTPException, ValueError) as error:
            raise SourceFailed(f"{self.shown}: {_why(error)}") from None
        finally:
            connection.close()
        if len(raw) > _LONGEST:
            raise SourceFailed(f"{self.shown}: the answer is longer than {_LONGEST} bytes")
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, raw)

    def ask(
        self, method: str, target: str, fields: Mapping[str, str], body: Mapping[str, str] | None = None
    ) -> Document:
        """The object that is answered with 200. Raises `SourceFailed`."""
        encoded = json.dumps(body).encode() if body is not None else None
        more = {"Content-Type": "application/json"} if body is not None else {}
        answer = self.exchange(method, target, {"Accept": "application/json", **more, **fields}, encoded)
        if answer.status != 200:
            place = f"{self.shown}{target.partition('?')[0]}"
            raise SourceFailed(f"{place}: HTTP {answer.status}{_said(answer.body)}")
        document = document_in(answer.body)
        if document is None:
            raise SourceFailed(f"{self.shown}: the answer is no object of JSON")
        return document

    def _connection(self) -> HTTPConnection:
        host = self._parts.hostname or ""
        if self._parts.scheme == "http":
            return HTTPConnection(host, self._parts.port, timeout=PATIENCE)
        context = ssl.create_default_context(cadata=self._ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return _Secure(host, self._parts.port, context)


class _Secure(HTTPConnection):
    """HTTPS whose handshake is left to the caller, who then has a socket to put an end to it by."""

    default_port = 443

    def __init__(self, host: str, port: int | None, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=PATIENCE)
        self._context = context

    def connect(self) -> None:
        super().connect()
        self.sock = self._context.wrap_socket(
            self.sock, server_hostname=self.host, do_handshake_on_connect=False
        )


def document_in(raw: bytes) -> Document | None:
    """The object of JSON that it is; None: none."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


@contextmanager
def _ended_after(seconds: float, sock: socket.socket) -> Iterator[None]:
    """Whatever waits for the socket ends then, with TimeoutError."""
    over = threading.Event()

    def end() -> None:
        over.set()
        with suppress(OSError):
            # The socket's own: that of TLS would take its state away from under whoever reads.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, HTTPException, ValueError):
        if not over.is_set():
            raise
    finally:
        timer.cancel()
    if over.is_set():
        raise TimeoutError(f"no answer within {seconds:.0f} s")


def _said(raw: bytes) -> str:
    """What a server says about its refusal, if it is short and plain."""
    document = document_in(raw[:4096]) or {}
    said = document.get("errors") or document.get("message") or ""
    text = "; ".join(map(str, said)) if isinstance(said, list) else str(said)
    return f": {text[:200]}" if text and text.isprintable() else ""


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return str(error) if "within" in str(error) else f"no answer within {PATIENCE:.0f} s"
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
