"""How a packet is to be read, said once more: from the RFCs and by slices, for comparison with parse.h."""

from dataclasses import dataclass
from enum import Enum

from marchproxy.dataplane.kernel import layouts

ICMP, TCP, UDP, FRAGMENT, ICMPV6 = 1, 6, 17, 44, 58
_HEADERS = {0, 43, 60}
"""Hop-by-hop, routing and destination options: same form, skipped."""
_LONGEST_CHAIN = 6
_CHAIN_END = 512
"""Offset in the frame behind which no extension header is read."""
MTU = 1500
"""Of both of the bed's links."""
_SYN = 2
_V4 = bytes(10) + b"\xff\xff"


class Piece(Enum):
    """What part of a datagram a packet is."""

    WHOLE = 0
    FIRST = 1
    LATER = 2


class Unread(Enum):
    """A packet the pipeline does not decide about."""

    HOSTS = "left to the host"
    MALFORMED = "malformed"


@dataclass(slots=True)
class Read:
    """A packet the pipeline decides about."""

    source: bytes
    """Sixteen bytes, as in flow keys."""
    destination: bytes
    protocol: int
    ttl: int
    transport: int
    """Offset in the frame."""
    end: int
    """Of the IP packet in the frame."""
    options: bool
    piece: Piece = Piece.WHOLE
    ident: bytes = b""
    ports: bytes = bytes(4)
    flags: int = 0
    """TCP's."""
    payload: int = 0
    """Bytes behind the transport header."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if self.source.startswith(_V4) else 6

    @property
    def key(self) -> bytes:
        """`mp_flow_key`."""
        return self.source + self.destination + self.ports + bytes((self.protocol, 0, 0, 0))

    @property
    def fragment_key(self) -> bytes:
        """`mp_fragment_key`."""
        return self.source + self.destination + self.ident.ljust(4, b"\0") + bytes((self.protocol, 0, 0, 0))


def read(frame: bytes) -> Read | Unread:
    """Read an untagged frame that is addressed to the interface."""
    kind = frame[12:14]
    if kind == b"\x08\x00":
        packet = _read4(frame)
    elif kind == b"\x86\xdd":
        packet = _read6(frame)
    else:
        return Unread.HOSTS
    if isinstance(packet, Unread) or packet.piece is Piece.LATER:
        return packet
    if packet.protocol == TCP:
        return _read_tcp(frame, packet)
    if packet.protocol == UDP:
        return _read_udp(frame, packet)
    return (
        _read_icmp(frame, packet) if packet.protocol == (ICMP if packet.version == 4 else ICMPV6) else packet
    )


def _read_icmp(frame: bytes, packet: Read) -> Read | Unread:
    icmp = frame[packet.transport : packet.end]
    if len(icmp) < 8:
        return Unread.MALFORMED
    request, reply = (8, 0) if packet.version == 4 else (128, 129)
    identifier = icmp[4:6]
    if icmp[0] == request:
        packet.ports = identifier + bytes(2)
    elif icmp[0] == reply:
        packet.ports = bytes(2) + identifier
    else:
        packet.ports = b"\xff" * 4
    return packet


def _read4(frame: bytes) -> Read | Unread:
    ip = frame[14:]
    if len(ip) < 20 or ip[0] >> 4 != 4:
        return Unread.MALFORMED
    header, total = (ip[0] & 15) * 4, int.from_bytes(ip[2:4])
    if not 20 <= header <= total <= len(ip):
        return Unread.MALFORMED
    source, destination = ip[12:16], ip[16:20]
    if 127 in (source[0], destination[0]) or source[0] & 0xF0 == 224 or source == b"\xff" * 4:
        return Unread.MALFORMED
    if not any(source) or not any(destination) or destination[0] >= 224:
        return Unread.HOSTS
    place = int.from_bytes(ip[6:8])
    piece = Piece.LATER if place & 0x1FFF else Piece.FIRST if place & 0x2000 else Piece.WHOLE
    return Read(
        _V4 + source, _V4 + destination, ip[9], ip[8], 14 + header, 14 + total, header > 20, piece,
        b"" if piece is Piece.WHOLE else ip[4:6],
    )  # fmt: skip


def _read6(frame: bytes) -> Read | Unread:
    ip = frame[14:]
    if len(ip) < 40 or ip[0] >> 4 != 6:
        return Unread.MALFORMED
    end = 54 + int.from_bytes(ip[4:6])
    if end > len(frame):
        return Unread.MALFORMED
    source, destination = ip[8:24], ip[24:40]
    if source.startswith(_V4) or source[0] == 0xFF or source == bytes(15) + b"\1":
        return Unread.MALFORMED
    if destination.startswith(_V4) or not any(destination[:12]):
        return Unread.MALFORMED
    link_local = any(address[0] == 0xFE and address[1] & 0xC0 == 0x80 for address in (source, destination))
    if not any(source) or destination[0] == 0xFF or link_local:
        return Unread.HOSTS
    packet = Read(source, destination, ip[6], ip[7], 54, end, options=False)
    return _read_chain(frame, packet)


def _read_chain(frame: bytes, packet: Read) -> Read | Unread:
    for _ in range(_LONGEST_CHAIN):
        header = frame[packet.transport :]
        if packet.protocol in _HEADERS:
            if len(header) < 2:
                return Unread.MALFORMED
            packet.transport += (header[1] + 1) * 8
            packet.options = True
        elif packet.protocol == FRAGMENT:
            if len(header) < 8 or packet.piece is not Piece.WHOLE:
                return Unread.MALFORMED
            packet.transport += 8
            packet.ident = header[4:8]
            place = int.from_bytes(header[2:4])
            packet.piece = Piece.LATER if place & 0xFFF8 else Piece.FIRST if place & 1 else Piece.WHOLE
        else:
            break
        packet.protocol = header[0]
        if packet.piece is Piece.LATER:
            break
        if packet.transport > _CHAIN_END:
            return Unread.MALFORMED
    if packet.protocol in (0, 43) or packet.transport > packet.end:
        return Unread.MALFORMED
    return packet


def _read_tcp(frame: bytes, packet: Read) -> Read | Unread:
    tcp = frame[packet.transport :]
    if len(tcp) < 20 or not 20 <= (tcp[12] >> 4) * 4 <= packet.end - packet.transport:
        return Unread.MALFORMED
    fin, syn, rst, ack = (tcp[13] >> bit & 1 for bit in (0, 1, 2, 4))
    if (syn and (fin or rst)) or not (fin or syn or rst or ack):
        return Unread.MALFORMED
    packet.ports, packet.flags = tcp[:4], tcp[13]
    packet.payload = packet.end - packet.transport - (tcp[12] >> 4) * 4
    return packet


def _read_udp(frame: bytes, packet: Read) -> Read | Unread:
    udp = frame[packet.transport : packet.end]
    length = int.from_bytes(udp[4:6])
    if len(udp) < 8 or (packet.piece is Piece.WHOLE and not 8 <= length <= packet.end - packet.transport):
        return Unread.MALFORMED
    packet.ports = udp[:4]
    packet.payload = packet.end - packet.transport - 8
    return packet


def rewritten(frame: bytes, packet: Read, flow: layouts.FlowEntry, out: bytes) -> bytes:
    """What the frame must come out as but for its checksums, which are `out`'s; see `is_as_right`."""
    wanted = bytearray(frame)
    four = packet.version == 4
    start, size = (26, 4) if four else (22, 16)
    wanted[start : start + 2 * size] = flow.source[-size:] + flow.destination[-size:]
    wanted[22 if four else 21] -= 1
    if four:
        wanted[24:26] = out[24:26]
    if packet.piece is not Piece.LATER:
        wanted[packet.transport : packet.transport + 4] = flow.source_port + flow.destination_port
        check = check_offset(packet)
        wanted[check : check + 2] = out[check : check + 2]
    if packet.protocol == TCP and packet.flags & _SYN and (at := mss_offset(frame, packet)):
        fits = MTU - (40 if four else 60)
        wanted[at : at + 2] = min(int.from_bytes(wanted[at : at + 2]), fits).to_bytes(2)
    return bytes(wanted)


def mss_offset(frame: bytes, packet: Read) -> int:
    """Where a TCP segment announces its largest; 0: nowhere."""
    at, end = packet.transport + 20, packet.transport + (frame[packet.transport + 12] >> 4) * 4
    while at + 4 <= end:
        kind, length = frame[at], frame[at + 1]
        if (kind, length) == (2, 4):
            return at + 2
        if kind == 0 or (kind != 1 and length < 2):
            return 0
        at += 1 if kind == 1 else length
    return 0


def check_offset(packet: Read) -> int:
    """Of the transport checksum."""
    return packet.transport + (16 if packet.protocol == TCP else 6)


def is_as_right(frame: bytes, out: bytes, packet: Read) -> bool:
    """Whether checksums are as right or wrong as before: they changed by what they cover (RFC 1624)."""
    addresses = slice(26, 34) if packet.version == 4 else slice(22, 54)
    if packet.version == 4 and _sum(frame[14:34]) != _sum(out[14:34]):
        return False
    if packet.piece is Piece.LATER:
        return True
    check = check_offset(packet)
    if packet.protocol == UDP and not any(frame[check : check + 2]):
        return out[check : check + 2] == b"\0\0"
    if packet.protocol == UDP and not any(out[check : check + 2]):
        return False
    transport = slice(packet.transport, packet.end)
    before, after = (_sum(each[addresses] + each[transport]) for each in (frame, out))
    return before == after


def _sum(data: bytes) -> int:
    return int.from_bytes(data + bytes(len(data) % 2)) % 0xFFFF
