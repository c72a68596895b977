"""Packets as values: built into bytes with right checksums.

A `Packet` says what a test means and nothing else; `reading.read` is the way back. Where a header field is
None it is computed, so a wrong one is written by giving it.
"""

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from struct import Struct, pack
from typing import Any, Final

from marchproxy.model.address import IPAddress

IPV4, IPV6, VLAN = 0x0800, 0x86DD, 0x8100
ICMP, TCP, UDP, FRAGMENT, ICMPV6 = 1, 6, 17, 44, 58
FLAGS: Final = "FSRPAUEC"
"""TCP flags by bit."""


def checksum(data: bytes) -> int:
    """The Internet checksum of `data` (RFC 1071): 0 over bytes that carry their own right one."""
    if len(data) % 2:
        data += b"\0"
    total = int.from_bytes(data) % 0xFFFF
    # The remainder is 0 for all zeros and for a sum of 0xffff, which is what every packet comes to.
    return 0xFFFF - total if total or not any(data) else 0


def pseudo_header(source: IPAddress, destination: IPAddress, protocol: int, length: int) -> bytes:
    """What transport checksums cover beside the transport (RFC 9293 section 3.1, RFC 8200 section 8.1)."""
    if source.version == 4:
        return pack("!4s4sBBH", source.packed, destination.packed, 0, protocol, length)
    return pack("!16s16sII", source.packed, destination.packed, length, protocol)


@dataclass(frozen=True, slots=True)
class Link:
    """The Ethernet header, with VLAN tags from the outside in (each TCI's 16 bits)."""

    destination: bytes
    source: bytes
    tags: tuple[int, ...] = ()
    kind: int | None = None
    """EtherType; None: that of the packet's IP version."""

    def build(self, version: int) -> bytes:
        """The header of a packet of that IP version."""
        tags = b"".join(pack("!HH", VLAN, tag) for tag in self.tags)
        kind = self.kind or (IPV4 if version == 4 else IPV6)
        return self.destination + self.source + tags + kind.to_bytes(2)


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP segment."""

    source: int
    destination: int
    flags: str = "S"
    sequence: int = 1000
    acknowledgement: int = 0
    payload: bytes = b""
    options: bytes = b""
    """Of a length divisible by four."""
    window: int = 65535
    check: int | None = None

    number = TCP
    layout = Struct("!HHIIBBHHH")

    def build(self, pseudo: bytes) -> bytes:
        """The segment."""
        bits = sum(1 << FLAGS.index(flag) for flag in self.flags)
        doff = (20 + len(self.options)) // 4 << 4

        def header(check: int) -> bytes:
            ports = (self.source, self.destination, self.sequence, self.acknowledgement)
            return self.layout.pack(*ports, doff, bits, self.window, check, 0) + self.options

        right = checksum(pseudo + header(0) + self.payload)
        return header(right if self.check is None else self.check) + self.payload


@dataclass(frozen=True, slots=True)
class Udp:
    """A UDP datagram."""

    source: int
    destination: int
    payload: bytes = b""
    check: int | None = None
    """0: left out."""
    length: int | None = None

    number = UDP
    layout = Struct("!HHHH")

    def build(self, pseudo: bytes) -> bytes:
        """The datagram."""
        length = 8 + len(self.payload) if self.length is None else self.length
        bare = self.layout.pack(self.source, self.destination, length, 0) + self.payload
        # A computed zero is sent as all ones (RFC 768).
        right = checksum(pseudo + bare) or 0xFFFF
        check = right if self.check is None else self.check
        return bare[:6] + check.to_bytes(2) + self.payload


@dataclass(frozen=True, slots=True)
class Icmp:
    """An ICMP or, over IPv6, ICMPv6 message."""

    type: int
    code: int = 0
    value: int = 0
    """The second word: an MTU, an identifier with a sequence number."""
    payload: bytes = b""
    check: int | None = None

    layout = Struct("!BBHI")

    def build(self, pseudo: bytes) -> bytes:
        """The message; over IPv4 the pseudo header is empty."""

        def message(check: int) -> bytes:
            return self.layout.pack(self.type, self.code, check, self.value) + self.payload

        return message(checksum(pseudo + message(0)) if self.check is None else self.check)


@dataclass(frozen=True, slots=True)
class Other:
    """Whatever else an IP packet carries, a piece of a transport included."""

    number: int
    payload: bytes = b""


type Transport = Tcp | Udp | Icmp | Other

NOWHERE: Final = Link(bytes(6), bytes(6))


@dataclass(frozen=True, slots=True)
class Packet:
    """An Ethernet frame with an IP packet in it."""

    source: IPAddress
    destination: IPAddress
    transport: Transport
    link: Link = NOWHERE
    ttl: int = 64
    tos: int = 0
    ident: int = 0x1234
    """IPv4, and of fragments."""
    dont_fragment: bool = False
    offset: int = 0
    """Of a fragment, in bytes."""
    more: bool = False
    """More fragments follow."""
    options: bytes = b""
    """IPv4, of a length divisible by four."""
    extensions: tuple[tuple[int, bytes], ...] = ()
    """IPv6: number and body, which begins behind the byte of the length and fills up whole eights."""
    length: int | None = None
    """IPv4's total length, IPv6's payload length."""
    check: int | None = None
    """IPv4 header checksum."""
    trailer: bytes = field(default=b"", compare=False)
    """Ethernet padding."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.source.version

    @property
    def protocol(self) -> int:
        """The transport's IANA number."""
        if isinstance(self.transport, Icmp):
            return ICMP if self.version == 4 else ICMPV6
        return self.transport.number

    def build(self) -> bytes:
        """The frame."""
        return self.link.build(self.version) + self._network(self.payload()) + self.trailer

    def payload(self) -> bytes:
        """The transport with its checksum."""
        if isinstance(self.transport, Other):
            return self.transport.payload
        length = len(self.transport.build(b""))
        pseudo = pseudo_header(self.source, self.destination, self.protocol, length)
        return self.transport.build(b"" if self.protocol == ICMP else pseudo)

    def _network(self, payload: bytes) -> bytes:
        return (self._network4 if self.version == 4 else self._network6)(payload) + payload

    def _network4(self, payload: bytes) -> bytes:
        words = 5 + len(self.options) // 4
        length = words * 4 + len(payload) if self.length is None else self.length
        place = self.dont_fragment << 14 | self.more << 13 | self.offset // 8
        ends = self.source.packed + self.destination.packed + self.options
        start = (4 << 4 | words, self.tos, length, self.ident, place, self.ttl, self.protocol)
        right = checksum(pack("!BBHHHBBH", *start, 0) + ends)
        return pack("!BBHHHBBH", *start, right if self.check is None else self.check) + ends

    def _network6(self, payload: bytes) -> bytes:
        headers = self.extensions
        if self.offset or self.more:
            headers = (*headers, (FRAGMENT, pack("!HI", self.offset | self.more, self.ident)))
        chain = [number for number, _ in headers] + [self.protocol]
        following = b"".join(
            bytes((after, 0 if number == FRAGMENT else (len(body) + 2) // 8 - 1)) + body
            for (number, after), (_, body) in zip(pairwise(chain), headers, strict=True)
        )
        length = len(following) + len(payload) if self.length is None else self.length
        start = pack("!IHBB", 6 << 28 | self.tos << 20, length, chain[0], self.ttl)
        return start + self.source.packed + self.destination.packed + following

    def fragments(self, size: int) -> list[bytes]:
        """The frames of this packet cut into pieces of `size` bytes (divisible by eight) of transport."""
        payload = self.payload()
        return [
            replace(
                self,
                transport=Other(self.protocol, payload[start : start + size]),
                offset=start,
                more=start + size < len(payload),
            ).build()
            for start in range(0, len(payload), size)
        ]

    def but(self, **changes: Any) -> "Packet":
        """The same packet but for these fields; those of the transport or link by their names with a prefix.

        `packet.but(ttl=1, transport__flags="A")`
        """
        own: dict[str, Any] = {}
        for name, value in changes.items():
            part, _, inner = name.partition("__")
            if inner:
                own[part] = replace(own.get(part, getattr(self, part)), **{inner: value})
            else:
                own[part] = value
        return replace(self, **own)


def packet(source: str, destination: str, transport: Transport, **fields: Any) -> Packet:
    """A packet between addresses given as text."""
    return Packet(ip_address(source), ip_address(destination), transport, **fields)


def mapped(address: str) -> IPv6Address:
    """An IPv4 address in IPv6 form, as it must not be on a wire."""
    return IPv6Address(b"\0" * 10 + b"\xff\xff" + IPv4Address(address).packed)
