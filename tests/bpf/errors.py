"""How an ICMP error is to be translated, said once more by slices of bytes, for comparison with icmp.h."""

from collections.abc import Callable
from dataclasses import dataclass

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.layouts import FlowEntry
from marchproxy.model.reason import Reason
from tests.bpf.reference import FRAGMENT, ICMPV6, TCP, UDP, Piece, Read

ICMP = 1
_ERRORS = {4: {3, 4, 5, 11, 12}, 6: set(range(128))}
_TRANSLATED = {4: {3, 11, 12}, 6: {1, 2, 3, 4}}
_ECHO = {4: (8, 0), 6: (128, 129)}
_CHECKS = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}

type Find = Callable[[bytes], FlowEntry | None]
"""From a packed key to its flow, in either table."""


@dataclass(slots=True)
class Quoted:
    """What an error quotes: offsets in the frame."""

    network: int
    transport: int
    protocol: int
    key: bytes
    """Under which answers to it arrive."""
    echo: int = 0
    """Offset in the transport header of the identifier; 0: it has ports."""


def is_error(frame: bytes, packet: Read) -> bool:
    """Whether this is a message about another packet."""
    number = ICMP if packet.version == 4 else ICMPV6
    if packet.protocol != number or packet.piece is Piece.LATER:
        return False
    return len(frame) > packet.transport and frame[packet.transport] in _ERRORS[packet.version]


def quoted(frame: bytes, packet: Read) -> Quoted | Reason | None:
    """What it quotes; None: nothing of ours; or a reason to drop it."""
    if packet.piece is not Piece.WHOLE or frame[packet.transport] not in _TRANSLATED[packet.version]:
        return None
    start, body = packet.transport + 8, frame[packet.transport + 8 : packet.end]
    if len(body) < (20 if packet.version == 4 else 40) or body[0] >> 4 != packet.version:
        return Reason.MALFORMED
    if packet.version == 4:
        if body[0] & 15 < 5:
            return Reason.MALFORMED
        if body[0] & 15 > 5 or int.from_bytes(body[6:8]) & 0x1FFF:
            return None
        protocol, size, ends = body[9], 20, [bytes(10) + b"\xff\xff" + body[at : at + 4] for at in (12, 16)]
    else:
        protocol, size, ends = body[6], 40, [body[8:24], body[24:40]]
        if protocol == FRAGMENT:
            if len(body) < 48:
                return Reason.MALFORMED
            if int.from_bytes(body[42:44]) & 0xFFF8:
                return None
            protocol, size = body[40], 48
    return _quoted_ports(packet, start, body, protocol, size, ends)


def _quoted_ports(
    packet: Read, start: int, body: bytes, protocol: int, size: int, ends: list[bytes]
) -> Quoted | Reason | None:
    transport = body[size:]
    if protocol not in (TCP, UDP, ICMP if packet.version == 4 else ICMPV6):
        return None
    if len(transport) < 8:
        return Reason.MALFORMED
    if protocol in (TCP, UDP):
        ports, echo = transport[2:4] + transport[:2], 0
    elif transport[0] in _ECHO[packet.version]:
        identifier, echo = transport[4:6], 4
        asked = transport[0] == _ECHO[packet.version][0]
        ports = bytes(2) + identifier if asked else identifier + bytes(2)
    else:
        return None
    key = ends[1] + ends[0] + ports + bytes((protocol, 0, 0, 0))
    return Quoted(start, start + size, protocol, key, echo) if ends[0] == packet.destination else None


def translated(frame: bytes, packet: Read, what: Quoted, flow: FlowEntry, out: bytes) -> bytes:
    """What it must come out as but for its checksums, which are `out`'s; see `is_as_right`."""
    wanted, four = bytearray(frame), packet.version == 4
    at, size = (26, 4) if four else (22, 16)
    if what.key[:16] == packet.source or (
        not flow.flags & layouts.FLAG_REPLY and flow.source != what.key[:16]
    ):
        wanted[at : at + size] = flow.source[-size:]
    wanted[at + size : at + 2 * size] = flow.destination[-size:]
    wanted[22 if four else 21] -= 1
    inner = what.network + (12 if four else 8)
    wanted[inner : inner + 2 * size] = flow.destination[-size:] + flow.source[-size:]
    start = what.transport
    if not what.echo:
        wanted[start : start + 4] = flow.destination_port + flow.source_port
    else:
        asked = frame[start] == _ECHO[packet.version][0]
        wanted[start + 4 : start + 6] = flow.destination_port if asked else flow.source_port
    for check in _checks(packet, what):
        wanted[check : check + 2] = out[check : check + 2]
    return bytes(wanted)


def is_as_right(frame: bytes, out: bytes, packet: Read, what: Quoted) -> bool:
    """Whether each checksum is as right or wrong as before (RFC 1624)."""
    four = packet.version == 4
    outer = slice(26, 34) if four else slice(22, 54)
    inner = (
        slice(what.network + 12, what.network + 20) if four else slice(what.network + 8, what.network + 40)
    )
    message = slice(packet.transport, packet.end)
    sums: list[Callable[[bytes], int]] = [lambda raw: _sum(raw[message]) + (0 if four else _sum(raw[outer]))]
    if four:
        sums.append(lambda raw: _sum(raw[14:34]))
        sums.append(lambda raw: _sum(raw[what.network : what.network + 20]))
    check = what.transport + _CHECKS[what.protocol]
    unused = what.protocol == UDP and not any(frame[check : check + 2])
    if check + 2 <= packet.end and not unused:
        ports = slice(what.transport + what.echo, what.transport + (what.echo + 2 if what.echo else 4))
        covered = b"" if what.protocol == ICMP else None

        def transport(raw: bytes) -> int:
            pseudo = raw[inner] if covered is None else b""
            return _sum(pseudo + raw[ports] + raw[check : check + 2])

        sums.append(transport)
    if unused and any(out[check : check + 2]):
        return False
    return all(each(frame) % 0xFFFF == each(out) % 0xFFFF for each in sums)


def _checks(packet: Read, what: Quoted) -> list[int]:
    """Offsets of checksums that may change."""
    check = what.transport + _CHECKS[what.protocol]
    found = [packet.transport + 2] + ([24, what.network + 10] if packet.version == 4 else [])
    return found + ([check] if check + 2 <= packet.end else [])


def _sum(data: bytes) -> int:
    return int.from_bytes(data + bytes(len(data) % 2)) % 0xFFFF
