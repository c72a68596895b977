"""The first packet of a flow as bytes, for programs to be run on."""

import struct

from marchproxy.dataplane.kernel import layouts
from marchproxy.model.address import IPAddress
from marchproxy.model.protocol import Transport

_TTL = 64
_SYN, _WINDOW = 2, 65535
_ECHO = {4: 8, 6: 128}
"""Types of echo requests (RFC 792, RFC 4443)."""
_ETHERTYPE = {4: 0x0800, 6: 0x86DD}


def first_packet(
    source: IPAddress,
    destination: IPAddress,
    source_port: int,
    port: int,
    transport: Transport | None,
    hardware: bytes,
) -> tuple[bytes, bytes]:
    """An Ethernet frame to `hardware`: a SYN, an empty datagram, or with no `transport` an echo request.

    With it the `mp_flow_key` of the flow. An echo's identifier is the `source_port`, its `port` is ignored.
    """
    number = transport.number if transport else layouts.ICMP if source.version == 4 else layouts.ICMPV6
    if transport is None:
        port = 0
    body = _body(source.version, source_port, port, transport)
    place = {layouts.TCP: 16, layouts.UDP: 6}.get(number, 2)
    pseudo = b"" if number == layouts.ICMP else _pseudo_header(source, destination, number, len(body))
    body = body[:place] + checksum(pseudo + body).to_bytes(2) + body[place + 2 :]
    ethernet = hardware + bytes(6) + _ETHERTYPE[source.version].to_bytes(2)
    key = layouts.FLOW_KEY.struct.pack(
        *(layouts.pack_address(source), layouts.pack_address(destination)),
        *(layouts.pack_port(source_port), layouts.pack_port(port), number),
    )
    return ethernet + _header(source, destination, number, len(body)) + body, key


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def _body(version: int, source_port: int, port: int, transport: Transport | None) -> bytes:
    if transport is Transport.TCP:
        return struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 5 << 4, _SYN, _WINDOW, 0, 0)
    if transport is Transport.UDP:
        return struct.pack("!HHHH", source_port, port, 8, 0)
    return struct.pack("!BBHHH", _ECHO[version], 0, 0, source_port, 1)


def _header(source: IPAddress, destination: IPAddress, number: int, length: int) -> bytes:
    if source.version == 6:
        return struct.pack("!IHBB16s16s", 6 << 28, length, number, _TTL, source.packed, destination.packed)

    def build(check: int) -> bytes:
        fields = (0x45, 0, 20 + length, 1, 0, _TTL, number, check, source.packed, destination.packed)
        return struct.pack("!BBHHHBBH4s4s", *fields)

    return build(checksum(build(0)))


def _pseudo_header(source: IPAddress, destination: IPAddress, number: int, length: int) -> bytes:
    """RFC 9293 section 3.1, RFC 8200 section 8.1."""
    if source.version == 4:
        return struct.pack("!4s4sBBH", source.packed, destination.packed, 0, number, length)
    return struct.pack("!16s16sII", source.packed, destination.packed, length, number)
