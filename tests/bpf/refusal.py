"""What a refused packet must be answered with, computed from nothing but the packet."""

from marchproxy.dataplane.kernel import layouts
from marchproxy.model.reason import Reason
from tests.bpf.packets import Icmp, Link, Packet, Tcp
from tests.bpf.reference import ICMP, ICMPV6, TCP, UDP, Piece, Read

_RST, _FIN, _SYN, _ACK = 4, 1, 2, 16

ERRORS = {
    # reason: ICMP type and code, ICMPv6 type and code
    Reason.TTL_EXPIRED: ((11, 0), (3, 0)),
    Reason.TOO_BIG: ((3, 4), (2, 0)),
    Reason.NO_ROUTE: ((3, 1), (1, 0)),
}
"""Told by ICMP to TCP as well: they are passing conditions."""
PROHIBITED = ((3, 13), (1, 1))
SILENT = {Reason.MALFORMED, Reason.UNSUPPORTED, Reason.FRAGMENT}


def answer_to(frame: bytes, packet: Read, reason: Reason, mtu: int = 0) -> bytes | None:
    """The frame that goes back, or None (RFC 1122 section 3.2.2, RFC 4443 section 2.4)."""
    unanswerable = packet.piece is Piece.LATER or packet.options or packet.flags & _RST
    spoken = packet.protocol in (TCP, UDP) or _is_echo(frame, packet, reason)
    if reason in SILENT or not spoken or unanswerable:
        return None
    if packet.protocol == TCP and reason not in ERRORS:
        return _back(frame, packet, _reset(frame, packet))
    kind, code = ERRORS.get(reason, PROHIBITED)[packet.version == 6]
    quoted = (20 if packet.version == 4 else 40) + (20 if packet.protocol == TCP else 8)
    value = mtu if reason is Reason.TOO_BIG else 0
    return _back(frame, packet, Icmp(kind, code, value, frame[14 : 14 + quoted]))


def _is_echo(frame: bytes, packet: Read, reason: Reason) -> bool:
    """A request is told whatever happens to it, a reply what is wrong with the way."""
    four = packet.version == 4
    if packet.protocol != (ICMP if four else ICMPV6):
        return False
    kind = frame[packet.transport]
    return kind == (8 if four else 128) or (kind == (0 if four else 129) and reason in ERRORS)


def _reset(frame: bytes, packet: Read) -> Tcp:
    """RFC 9293 section 3.10.7.1."""
    tcp = frame[packet.transport :]
    ports = int.from_bytes(tcp[2:4]), int.from_bytes(tcp[:2])
    if packet.flags & _ACK:
        return Tcp(*ports, "R", int.from_bytes(tcp[8:12]), 0, window=0)
    length = packet.payload + bool(packet.flags & _SYN) + bool(packet.flags & _FIN)
    return Tcp(*ports, "RA", 0, (int.from_bytes(tcp[4:8]) + length) % 2**32, window=0)


def _back(frame: bytes, packet: Read, transport: Tcp | Icmp) -> bytes:
    source, destination = map(layouts.read_address, (packet.destination, packet.source))
    link = Link(frame[6:12], frame[:6])
    return Packet(source, destination, transport, link, ident=0, dont_fragment=True).build()
