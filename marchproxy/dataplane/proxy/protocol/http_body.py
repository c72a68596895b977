"""Where one request ends (RFC 9112 sections 6 and 7): a relay must not become a tunnel for a second one."""

import re
from enum import Enum, auto
from http import HTTPStatus

from marchproxy.dataplane.proxy.protocol.exchange import Bound
from marchproxy.dataplane.proxy.protocol.http_head import TOKEN, Head, HttpUnfit, malformed
from marchproxy.model.reason import Reason

MAX_CHUNK_LINE = 1_024
"""Bytes of a chunk's size with its extensions, and of one trailer."""
MAX_TRAILERS = 8_192
"""Bytes of all trailers."""

_LENGTH = re.compile(r"[0-9]{1,18}")
_QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_SIZE = re.compile(
    rf"([0-9A-Fa-f]{{1,15}})(?:[ \t]*;[ \t]*{TOKEN}(?:[ \t]*=[ \t]*(?:{TOKEN}|{_QUOTED}))?)*".encode(
        "latin-1"
    )
)
"""A chunk's first line (RFC 9112 section 7.1.1)."""
_TRAILER = re.compile(TOKEN.encode() + rb":[\t -~\x80-\xff]*")
_SWITCHED = re.compile(rb"HTTP/1\.1 101[ \r]")


def wants_websocket(head: Head) -> bool:
    """Whether a request asks to become a WebSocket (RFC 6455).

    Other protocols are never switched to: behind h2c more requests would follow, unseen.
    """
    named = "upgrade" in head.words("connection") and head.words("upgrade") == {"websocket"}
    return named and head.method == "GET" and head.version == "1.1" and not _has_body(head)


def read_body(head: Head) -> Bound:
    """The end of a forwarded request, by its head. Raises `Unfit`."""
    if wants_websocket(head):
        return Switching()
    coding, length = head.get("transfer-encoding"), head.get("content-length")
    if coding is None:
        return Counted(_length(length) if length is not None else 0)
    if length is not None:
        raise malformed("both Transfer-Encoding and Content-Length")
    if head.version == "1.0":
        raise malformed("Transfer-Encoding in HTTP/1.0")
    if coding.lower() != "chunked":
        raise HttpUnfit(
            HTTPStatus.NOT_IMPLEMENTED, Reason.UNSUPPORTED, "of transfer codings, chunked is taken"
        )
    return Chunked()


def check_bodiless(head: Head) -> None:
    """Refuse CONNECT with a body: what follows it is the tunnel (RFC 9110 section 9.3.6). Raises `Unfit`."""
    length = head.get("content-length")
    if head.get("transfer-encoding") is not None or (length is not None and _length(length) > 0):
        raise malformed("CONNECT with a body")


class Counted:
    """A body with Content-Length."""

    free = False

    def __init__(self, length: int) -> None:
        self._left = length

    def take(self, data: bytes) -> bytes:
        """What is of the body."""
        taken = data[: self._left]
        self._left -= len(taken)
        return taken

    def answered(self, data: bytes) -> None:
        """Changes nothing."""


class _Part(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()
    ENDED = auto()


class Chunked:
    """A body in chunks, which pass as they are once each line of their framing was understood."""

    free = False

    def __init__(self) -> None:
        self._part = _Part.SIZE
        self._left = 0
        self._line = bytearray()
        self._trailers = 0

    @property
    def ended(self) -> bool:
        """Whether all of it has come."""
        return self._part is _Part.ENDED

    def take(self, data: bytes) -> bytes:
        """What is of the body. Raises `Unfit` when the framing is broken."""
        at = 0
        while at < len(data) and self._part is not _Part.ENDED:
            at += self._data(data, at) if self._part is _Part.DATA else self._framing(data, at)
        return data[:at]

    def answered(self, data: bytes) -> None:
        """Changes nothing."""

    def _content(self, data: bytes) -> None:
        """Told of what is in chunks."""

    def _trail(self, line: bytes) -> None:
        """Told of each trailer."""

    def _data(self, data: bytes, at: int) -> int:
        taken = min(self._left, len(data) - at)
        self._content(data[at : at + taken])
        self._left -= taken
        if self._left == 0:
            self._part = _Part.DATA_END
        return taken

    def _framing(self, data: bytes, at: int) -> int:
        """Read on in a line; the number of bytes that were taken."""
        newline = data.find(b"\n", at)
        end = newline + 1 if newline >= 0 else len(data)
        self._line += data[at : min(end, at + MAX_CHUNK_LINE + 1)]
        if len(self._line) > MAX_CHUNK_LINE:
            raise malformed(f"a line between chunks has more than {MAX_CHUNK_LINE} bytes")
        if newline >= 0:
            line = bytes(self._line)
            self._line.clear()
            if not line.endswith(b"\r\n"):
                raise malformed("a line between chunks ends without CR")
            self._complete(line[:-2])
        return end - at

    def _complete(self, line: bytes) -> None:
        match self._part:
            case _Part.SIZE:
                size = _SIZE.fullmatch(line)
                if size is None:
                    raise malformed("a chunk does not begin with its size")
                self._left = int(size[1], 16)
                self._part = _Part.DATA if self._left else _Part.TRAILER
            case _Part.DATA_END:
                if line:
                    raise malformed("a chunk is longer than its size")
                self._part = _Part.SIZE
            case _:
                self._trailer(line)

    def _trailer(self, line: bytes) -> None:
        self._trailers += len(line)
        if not line:
            self._part = _Part.ENDED
        elif self._trailers > MAX_TRAILERS or not _TRAILER.fullmatch(line):
            raise malformed("the trailers of a body are not NAME: VALUE, or too long")
        else:
            self._trail(line)


class Switching:
    """A request that becomes a WebSocket if the server says so; if not, it was the only one."""

    def __init__(self) -> None:
        self._answer: bytes = b""

    @property
    def free(self) -> bool:
        """Whether the server has switched."""
        return _SWITCHED.match(self._answer) is not None

    def take(self, data: bytes) -> bytes:
        """All of it after the switch; before, a client has nothing to say. Raises `Unfit`."""
        if data and not self.free:
            raise malformed("more was sent before the server has switched protocols")
        return data

    def answered(self, data: bytes) -> None:
        """Look for the status, at the beginning of what the server sends."""
        length = len("HTTP/1.1 101 ")
        self._answer += data[: length - len(self._answer)]


def _has_body(head: Head) -> bool:
    return head.get("transfer-encoding") is not None or head.get("content-length") not in (None, "0")


def _length(text: str) -> int:
    if not _LENGTH.fullmatch(text):
        raise malformed("Content-Length is not a number")
    return int(text)
