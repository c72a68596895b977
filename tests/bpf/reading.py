"""From bytes back to a `Packet`, with everything checked that can be."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Address, IPv6Address
from struct import unpack_from

from tests.bpf.packets import (
    FLAGS,
    FRAGMENT,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    TCP,
    UDP,
    VLAN,
    Icmp,
    Link,
    Other,
    Packet,
    Tcp,
    Transport,
    Udp,
    checksum,
    pseudo_header,
)

_HOP_BY_HOP, _ROUTING, _DESTINATION = 0, 43, 60


@dataclass(slots=True)
class Reading:
    """A frame as read."""

    link: Link
    packet: Packet | None = None
    """None for anything but IP, or an IP header that is not whole."""
    problems: list[str] = field(default_factory=list)
    """What no honest sender writes: wrong lengths and checksums."""


def read(frame: bytes) -> Reading:
    """Read a frame of at least fourteen bytes."""
    kind, at, tags = int.from_bytes(frame[12:14]), 14, []
    while kind == VLAN and len(frame) >= at + 4:
        tags.append(int.from_bytes(frame[at : at + 2]))
        kind, at = int.from_bytes(frame[at + 2 : at + 4]), at + 4
    reading = Reading(Link(frame[:6], frame[6:12], tuple(tags), None if kind in (IPV4, IPV6) else kind))
    body = frame[at:]
    if kind == IPV4 and len(body) >= 20 and 20 <= (body[0] & 15) * 4 <= len(body):
        reading.packet = _read4(reading, body)
    elif kind == IPV6 and len(body) >= 40:
        reading.packet = _read6(reading, body)
    elif kind in (IPV4, IPV6):
        reading.problems.append("no whole IP header")
    return reading


def _read4(reading: Reading, body: bytes) -> Packet:
    start, tos, length, ident, place, ttl, number, _check, source, destination = unpack_from(
        "!BBHHHBBH4s4s", body
    )
    header = (start & 15) * 4
    if checksum(body[:header]):
        reading.problems.append("wrong IPv4 header checksum")
    if not header <= length <= len(body):
        reading.problems.append(f"IPv4 total length {length} in {len(body)} bytes")
    packet = Packet(
        IPv4Address(source),
        IPv4Address(destination),
        Other(number, body[header:length]),
        reading.link,
        ttl,
        tos,
        ident,
        dont_fragment=bool(place & 0x4000),
        offset=(place & 0x1FFF) * 8,
        more=bool(place & 0x2000),
        options=body[20:header],
        trailer=body[length:],
    )
    return replace(packet, transport=_read_transport(reading, packet, number, body[header:length]))


def _read6(reading: Reading, body: bytes) -> Packet:
    start, length, number, ttl, source, destination = unpack_from("!IHBB16s16s", body)
    if length > len(body) - 40:
        reading.problems.append(f"IPv6 payload length {length} in {len(body) - 40} bytes")
    rest = body[40 : 40 + length]
    extensions: list[tuple[int, bytes]] = []
    ident, offset, more = 0x1234, 0, False
    while number in (_HOP_BY_HOP, _ROUTING, _DESTINATION, FRAGMENT) and len(rest) >= 8 and not offset:
        size = 8 if number == FRAGMENT else (rest[1] + 1) * 8
        following, content = rest[0], rest[2:size]
        if number == FRAGMENT and len(rest) >= 8:
            place, ident = unpack_from("!HI", content)
            offset, more = place & 0xFFF8, bool(place & 1)
        else:
            extensions.append((number, content))
        number, rest = following, rest[size:]
    packet = Packet(
        IPv6Address(source),
        IPv6Address(destination),
        Other(number, rest),
        reading.link,
        ttl,
        start >> 20 & 0xFF,
        ident,
        offset=offset,
        more=more,
        extensions=tuple(extensions),
        trailer=body[40 + length :],
    )
    return replace(packet, transport=_read_transport(reading, packet, number, rest))


def _read_transport(reading: Reading, packet: Packet, number: int, payload: bytes) -> Transport:
    """A fragment's transport is only its bytes: the checksum is the whole datagram's."""
    if packet.offset or packet.more:
        return Other(number, payload)
    if number == TCP and len(payload) >= 20 and 20 <= (payload[12] >> 4) * 4 <= len(payload):
        transport: Transport = _tcp(payload)
    elif number == UDP and len(payload) >= 8:
        transport = _udp(reading, payload)
    elif number in (ICMP, ICMPV6) and len(payload) >= 8:
        kind, code, _, value = Icmp.layout.unpack_from(payload)
        transport = Icmp(kind, code, value, payload[8:])
    else:
        return Other(number, payload)
    pseudo = pseudo_header(packet.source, packet.destination, number, len(payload))
    left_out = isinstance(transport, Udp) and transport.check == 0
    if not left_out and checksum((b"" if number == ICMP else pseudo) + payload):
        reading.problems.append("wrong transport checksum")
    return transport


def _tcp(payload: bytes) -> Tcp:
    source, destination, sequence, acknowledgement, doff, bits, window, _, _ = Tcp.layout.unpack_from(payload)
    flags = "".join(flag for bit, flag in enumerate(FLAGS) if bits >> bit & 1)
    header = (doff >> 4) * 4
    return Tcp(
        source, destination, flags, sequence, acknowledgement, payload[header:], payload[20:header], window
    )


def _udp(reading: Reading, payload: bytes) -> Udp:
    source, destination, length, check = Udp.layout.unpack_from(payload)
    if not 8 <= length <= len(payload):
        reading.problems.append(f"UDP length {length} in {len(payload)} bytes")
    left_out = 0 if check == 0 else None
    return Udp(source, destination, payload[8:], left_out, None if length == len(payload) else length)


def describe(frame: bytes) -> str:
    """A frame for people, for failure messages."""
    reading = read(frame)
    head = f"{len(frame)} bytes, {reading.link.source.hex(':')} > {reading.link.destination.hex(':')}"
    lines = [head + "".join(f", VLAN {tag:#06x}" for tag in reading.link.tags)]
    if reading.packet is None:
        lines.append(frame[14:].hex())
    else:
        lines += _describe_packet(reading.packet)
    return "\n".join(lines + [f"! {problem}" for problem in reading.problems])


def _describe_packet(packet: Packet) -> Iterator[str]:
    unusual = [
        f"{each.name}={getattr(packet, each.name)!r}"
        for each in fields(packet)
        if each.name not in ("source", "destination", "transport", "link") and getattr(packet, each.name)
    ]
    yield f"{packet.source} > {packet.destination} " + " ".join(unusual)
    yield repr(packet.transport)


def compare(got: bytes, wanted: bytes) -> str:
    """Both decoded, for the message of a failed comparison."""
    return f"\n--- got\n{describe(got)}\n{got.hex()}\n--- wanted\n{describe(wanted)}\n{wanted.hex()}"
