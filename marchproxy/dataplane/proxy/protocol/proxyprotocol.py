r"""The PROXY protocol of HAProxy, versions 1 and 2: who the client is, as one proxy tells the next.

    version 1   PROXY TCP4|TCP6 SOURCE DESTINATION SOURCE_PORT DESTINATION_PORT\r\n, 107 bytes at most
    version 2   offset  bytes
                0       12     signature
                12      1      version (2) and command (0: LOCAL, 1: PROXY), four bits each
                13      1      family and protocol: 0x11 TCP over IPv4, 0x21 over IPv6, 0x00 unspecified
                14      2      length of what follows
                16      12|36  source, destination (4 or 16 bytes each), their ports; then TLVs

All numbers are in network byte order. Whoever may connect can claim to be anyone by this, so it is for peers
that are trusted to say it.
"""

import re
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from marchproxy.dataplane.proxy.protocol.wire import Cursor
from marchproxy.model.address import IPAddress

MAX_V1 = 107
"""Bytes with CRLF."""
MAX_V2 = 536
"""Bytes that the specification asks a receiver to take."""

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEADER = 16
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6 = 0x00, 0x11, 0x21
_PORT = r"(0|[1-9][0-9]{0,4})"
_TCP = re.compile(rf"PROXY TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) {_PORT} {_PORT}")
_UNKNOWN = re.compile(r"PROXY UNKNOWN(?: .*)?")


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of the connection that a proxy took. IPv4-mapped addresses are IPv4."""

    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a proxy said before its client."""

    ends: Ends | None
    """None: the peer speaks for itself (LOCAL, as in its health checks), or does not know (UNKNOWN)."""
    rest: bytes = field(repr=False)
    """What was read behind the header; the beginning of the client's own bytes."""


@dataclass(frozen=True, slots=True)
class NotProxy:
    """The peer does not say who its client is, or not in a way that can be trusted."""

    detail: str


class ProxyProtocolReader:
    """Reads the header before anything else on a connection."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> Header | NotProxy | None:
        """Take in what came; None: there is more to come. After another answer it is not called again."""
        self._held += data
        for signature, read in ((_V1, _read_v1), (_V2, _read_v2)):
            length = min(len(signature), len(self._held))
            if self._held[:length] == signature[:length]:
                return read(self._held) if length == len(signature) else None
        return NotProxy("the connection does not begin with the PROXY protocol")


def build_v1(ends: Ends | None) -> bytes:
    """The header of version 1; None: unknown."""
    if ends is None:
        return b"PROXY UNKNOWN\r\n"
    source, destination = _one_family(ends)
    line = f"PROXY TCP{source.version} {source} {destination} {ends.source_port} {ends.destination_port}\r\n"
    return line.encode("ascii")


def build_v2(ends: Ends | None) -> bytes:
    """The header of version 2, without TLVs; None: LOCAL."""
    if ends is None:
        return _V2 + bytes((_LOCAL, _UNSPECIFIED, 0, 0))
    source, destination = _one_family(ends)
    ports = ends.source_port.to_bytes(2) + ends.destination_port.to_bytes(2)
    addresses = source.packed + destination.packed + ports
    family = _TCP4 if source.version == 4 else _TCP6
    return _V2 + bytes((_PROXY, family)) + len(addresses).to_bytes(2) + addresses


def _read_v1(held: bytes) -> Header | NotProxy | None:
    end = held.find(b"\n", 0, MAX_V1) + 1
    if end == 0:
        return NotProxy(f"more than {MAX_V1} bytes in the PROXY line") if len(held) >= MAX_V1 else None
    line = held[:end].decode("latin-1")
    if not line.endswith("\r\n"):
        return NotProxy("the PROXY line ends without CR")
    if _UNKNOWN.fullmatch(line[:-2]):
        return Header(None, held[end:])
    ends = _ends(line[:-2])
    return NotProxy("the PROXY line is malformed") if ends is None else Header(ends, held[end:])


def _ends(line: str) -> Ends | None:
    found = _TCP.fullmatch(line)
    if found is None:
        return None
    version, source, destination, *ports = found.groups()
    family = IPv4Address if version == "4" else IPv6Address
    source_port, destination_port = map(int, ports)
    if max(source_port, destination_port) > 65535:
        return None
    try:
        return Ends(_plain(family(source)), source_port, _plain(family(destination)), destination_port)
    except AddressValueError:
        return None


def _read_v2(held: bytes) -> Header | NotProxy | None:
    if len(held) < _V2_HEADER:
        return None
    command, family, length = held[12], held[13], int.from_bytes(held[14:16])
    end = _V2_HEADER + length
    if command not in (_LOCAL, _PROXY):
        return NotProxy("the PROXY header has an unknown version or command")
    if end > MAX_V2:
        return NotProxy(f"more than {MAX_V2} bytes in the PROXY header")
    if command == _LOCAL or family == _UNSPECIFIED:
        return Header(None, held[end:]) if len(held) >= end else None
    if family not in (_TCP4, _TCP6):
        return NotProxy("the PROXY header is of something else than TCP")
    size = 4 if family == _TCP4 else 16
    if length < 2 * size + 4:
        return NotProxy("the PROXY header is too short for its addresses")
    if len(held) < end:
        return None
    return Header(_packed_ends(Cursor(held[_V2_HEADER:end]), size), held[end:])


def _packed_ends(body: Cursor, size: int) -> Ends:
    family = IPv4Address if size == 4 else IPv6Address
    source, destination = _plain(family(body.take(size))), _plain(family(body.take(size)))
    return Ends(source, body.number(2), destination, body.number(2))


def _plain(address: IPAddress) -> IPAddress:
    """What policy and block lists know the client by."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _one_family(ends: Ends) -> tuple[IPAddress, IPAddress]:
    """Both addresses; where one is IPv6, the other is mapped to it."""
    if ends.source.version == ends.destination.version:
        return ends.source, ends.destination
    source, destination = (
        IPv6Address(f"::ffff:{address}") if address.version == 4 else address
        for address in (ends.source, ends.destination)
    )
    return source, destination
