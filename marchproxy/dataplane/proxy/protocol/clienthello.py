"""The first message of a TLS client (RFC 8446 section 4.1.2), read from what passes through unchanged.

Records (type 22, version in 2 bytes, length in 2) carry a message (type 1, length in 3), and both may be cut
anywhere. What a server might take in another way than we do is malformed: two names, an extension twice,
lengths that do not meet.
"""

from dataclasses import dataclass

from marchproxy.dataplane.proxy.protocol.authority import read_host
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.dataplane.proxy.protocol.wire import Cursor, Truncated
from marchproxy.model.reason import Reason

MAX_HELLO = 65_000
"""Bytes of a hello; in large records it fits into `MAX_AHEAD`. With ML-KEM one has 1,800."""

_HANDSHAKE, _MAJOR, _CLIENT_HELLO = 22, 3, 1
_MESSAGE_HEADER = 4
_MAX_RECORD = 16_384
_SERVER_NAME, _ALPN, _VERSIONS, _ECH = 0, 16, 43, 0xFE0D
_HOST_NAME = 0
"""The only type of name in RFC 6066 section 3."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a client's hello says in the clear."""

    server_name: str | None
    """A host name, lower case and without a trailing dot; None: none, or the text of an address."""
    alpn: tuple[str, ...]
    """Protocols in the client's order, as Latin-1."""
    ech: bool
    """Whether the real name may be hidden (RFC 9849). Browsers that hide nothing pretend to."""
    versions: tuple[int, ...]
    """Versions that the client offers, as 0x0304 for TLS 1.3."""


@dataclass(frozen=True, slots=True)
class NotTls:
    """No TLS client would say this."""

    detail: str
    broken: bool
    """It began as TLS does, and then broke its rules."""


class ClientHelloReader:
    """Reads a hello out of a stream, which it leaves to its caller."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0
        self._message = bytearray()

    def feed(self, data: bytes) -> Hello | NotTls | None:
        """Take in what came; None: there is more to come. After another answer it is not called again."""
        at = 0
        found: Hello | NotTls | None = None
        while at < len(data) and found is None:
            if self._left == 0:
                self._header += data[at : at + 1]
                at += 1
                found = self._header_byte()
            else:
                part = data[at : at + self._left]
                at += len(part)
                self._left -= len(part)
                self._message += part
                found = self._progress()
        return found

    def _header_byte(self) -> NotTls | None:
        """Judge a record's header by its last byte."""
        header = self._header
        first = not self._message
        match len(header):
            case 1 if header[0] != _HANDSHAKE:
                return NotTls("the first byte is not that of TLS" if first else "a hello is cut", not first)
            case 2 if header[1] != _MAJOR:
                return NotTls("the version of a record is not that of TLS", not first)
            case 5:
                self._left = int.from_bytes(header[3:])
                header.clear()
                if not 0 < self._left <= _MAX_RECORD:
                    return NotTls("the length of a record is out of bounds", True)
        return None

    def _progress(self) -> Hello | NotTls | None:
        message = self._message
        if message[0] != _CLIENT_HELLO:
            return NotTls("the first message is not a client's hello", True)
        if len(message) < _MESSAGE_HEADER:
            return None
        length = int.from_bytes(message[1:_MESSAGE_HEADER])
        if length > MAX_HELLO:
            return NotTls(f"a hello of more than {MAX_HELLO} bytes", True)
        if len(message) < _MESSAGE_HEADER + length:
            return None
        try:
            return _hello(Cursor(bytes(message[_MESSAGE_HEADER : _MESSAGE_HEADER + length])))
        except Truncated:
            return NotTls("the lengths within a hello contradict each other", True)
        except Unfit as unfit:
            return NotTls(unfit.detail, True)


def _hello(body: Cursor) -> Hello:
    """Raises `Truncated` and `Unfit`."""
    legacy_version = body.number(2)
    body.take(32)
    body.vector(1)
    body.vector(2)
    body.vector(1)
    extensions = _extensions(body)
    name, alpn = extensions.get(_SERVER_NAME), extensions.get(_ALPN)
    versions = extensions.get(_VERSIONS)
    return Hello(
        server_name=None if name is None else _server_name(name),
        alpn=() if alpn is None else _protocols(alpn),
        ech=_ECH in extensions,
        versions=(legacy_version,) if versions is None else _versions(versions),
    )


def _extensions(body: Cursor) -> dict[int, Cursor]:
    if body.left == 0:
        return {}
    extensions: dict[int, Cursor] = {}
    listed = body.vector(2)
    body.end()
    while listed.left:
        kind = listed.number(2)
        if kind in extensions:
            raise Unfit(Reason.MALFORMED, "an extension comes twice in a hello")
        extensions[kind] = listed.vector(2)
    return extensions


def _server_name(extension: Cursor) -> str | None:
    """RFC 6066 section 3, with exactly one name."""
    listed = extension.vector(2)
    extension.end()
    if listed.number(1) != _HOST_NAME:
        raise Unfit(Reason.MALFORMED, "the TLS server name is of an unknown type")
    name = listed.vector(2)
    listed.end()
    host = read_host(name.take(name.left).decode("latin-1"))
    return host if isinstance(host, str) else None


def _protocols(extension: Cursor) -> tuple[str, ...]:
    """RFC 7301 section 3.1."""
    listed = extension.vector(2)
    extension.end()
    protocols: list[str] = []
    while listed.left:
        protocol = listed.vector(1)
        protocols.append(protocol.take(protocol.left).decode("latin-1"))
    return tuple(protocols)


def _versions(extension: Cursor) -> tuple[int, ...]:
    """RFC 8446 section 4.2.1."""
    listed = extension.vector(1)
    extension.end()
    versions: list[int] = []
    while listed.left:
        versions.append(listed.number(2))
    return tuple(versions)
