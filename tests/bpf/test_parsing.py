"""What is read, what is left to the host, what is dropped as malformed, and what no flow may carry."""

from dataclasses import dataclass
from ipaddress import IPv6Address

import pytest

from marchproxy.model.reason import Reason
from tests.bpf.bed import FROM_CLIENT, INSIDE, Action, Bed, Tier
from tests.bpf.packets import FRAGMENT, Icmp, Link, Other, Packet, Tcp, Udp, mapped, packet
from tests.bpf.policies import OPEN
from tests.bpf.talk import Talk, check_frame, from_client
from tests.policy.build import plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

SYN4, SYN6 = from_client(Tcp(40000, 80)), from_client(Tcp(40000, 80), "fd01::2", "fd01::1")
UDP4, UDP6 = from_client(Udp(40000, 80, b"abcd")), from_client(Udp(40000, 80, b"abcd"), "fd01::2", "fd01::1")
HOST, BAD, UNSUPPORTED = Reason.PASSED_TO_HOST, Reason.MALFORMED, Reason.UNSUPPORTED
HOP_BY_HOP, ROUTING, DESTINATION = 0, 43, 60


def raw(start: Packet, *edits: tuple[int, int]) -> bytes:
    """The frame with single bytes overwritten, by their offset from the IP header."""
    frame = bytearray(start.build())
    for offset, value in edits:
        frame[14 + offset] = value
    return bytes(frame)


def v4(source: str, destination: str = "10.1.0.1") -> Packet:
    return packet(source, destination, Tcp(40000, 80), link=FROM_CLIENT)


def v6(source: str, destination: str = "fd01::1") -> Packet:
    return packet(source, destination, Tcp(40000, 80), link=FROM_CLIENT)


def of_kind(kind: int, body: bytes = bytes(46), *tags: int) -> bytes:
    return Link(INSIDE, FROM_CLIENT.source, tags, kind).build(4) + body


@dataclass(frozen=True)
class Row:
    sentence: str
    reason: Reason
    frame: Packet | bytes
    tiers: tuple[Tier, ...] = ("tc", "xdp")


_XDP: tuple[Tier, ...] = ("xdp",)
"""The kernel runs no TC program on a buffer that ends before the IP header does, in a test as on a wire."""

ROWS = (
    Row("ARP", HOST, of_kind(0x0806)),
    Row("an EtherType nobody knows", HOST, of_kind(0x88B5)),
    Row("nothing behind the Ethernet header", HOST, of_kind(0x0806, b"")),
    Row("an Ethernet header that says IPv4, and no more", BAD, of_kind(0x0800, b""), _XDP),
    Row("an Ethernet header that says IPv6, and no more", BAD, of_kind(0x86DD, b""), _XDP),
    Row("a frame of another VLAN", HOST, SYN4.but(link__tags=(5,))),
    Row("a frame with two tags", HOST, SYN6.but(link__tags=(5, 6))),
    Row("a broadcast frame", HOST, SYN4.but(link__destination=b"\xff" * 6)),
    Row("a multicast frame", HOST, SYN6.but(link__destination=bytes.fromhex("333300000001"))),
    # IPv4 addresses
    Row("IPv4 multicast", HOST, v4("10.1.0.2", "224.0.0.5")),
    Row("IPv4 limited broadcast", HOST, v4("10.1.0.2", "255.255.255.255")),
    Row("IPv4 without a source, as DHCP", HOST, v4("0.0.0.0")),
    Row("IPv4 without a destination", HOST, v4("10.1.0.2", "0.0.0.0")),
    Row("IPv4 loopback as source", BAD, v4("127.0.0.1")),
    Row("IPv4 loopback as destination", BAD, v4("10.1.0.2", "127.8.9.10")),
    Row("IPv4 multicast as source", BAD, v4("224.0.0.1")),
    Row("IPv4 broadcast as source", BAD, v4("255.255.255.255")),
    # IPv6 addresses
    Row("IPv6 neighbour discovery", HOST, packet("fe80::1", "ff02::1:ff00:1", Icmp(135), link=FROM_CLIENT)),
    Row("IPv6 link-local", HOST, v6("fe80::1", "fe80::2")),
    Row("IPv6 link-local to a listener", HOST, v6("fe80::1")),
    Row("IPv6 without a source", HOST, v6("::")),
    Row("IPv6 loopback as source", BAD, v6("::1")),
    Row("IPv6 loopback as destination", BAD, v6("fd01::2", "::1")),
    Row("IPv6 multicast as source", BAD, v6("ff02::1")),
    Row("an IPv4 source in IPv6", BAD, SYN6.but(source=mapped("10.1.0.2"))),
    Row("an IPv4 destination in IPv6", BAD, SYN6.but(destination=mapped("10.1.0.1"))),
    Row("an IPv4-compatible destination in IPv6", BAD, SYN6.but(destination=IPv6Address("::10.1.0.1"))),
    # IPv4 headers
    Row("IPv4 of version 5", BAD, raw(SYN4, (0, 0x55))),
    Row("IPv4 of version 6", BAD, raw(SYN4, (0, 0x65))),
    Row("IPv4 header shorter than itself", BAD, raw(SYN4, (0, 0x44))),
    Row("IPv4 header longer than the packet", BAD, raw(SYN4, (0, 0x4F))),
    Row("IPv4 length below its header", BAD, SYN4.but(length=19)),
    Row("IPv4 length of nothing", BAD, SYN4.but(length=0)),
    Row("IPv4 length beyond the frame", BAD, SYN4.but(length=41)),
    Row("IPv4 cut off in the header", BAD, SYN4.build()[: 14 + 19], _XDP),
    Row("IPv4 cut off in TCP", BAD, SYN4.but(length=39).build()[: 14 + 39]),
    Row("IPv4 cut off in UDP", BAD, UDP4.but(length=27).build()[: 14 + 27]),
    Row("TCP beyond the IPv4 length", BAD, SYN4.but(length=39, trailer=bytes(20))),
    # IPv6 headers
    Row("IPv6 of version 4", BAD, raw(SYN6, (0, 0x40))),
    Row("IPv6 length beyond the frame", BAD, SYN6.but(length=21)),
    Row("IPv6 length below TCP", BAD, SYN6.but(length=19)),
    Row("IPv6 length of nothing", BAD, SYN6.but(length=0)),
    Row("IPv6 cut off in the header", BAD, SYN6.build()[: 14 + 39], _XDP),
    Row("hop-by-hop options that go on beyond the frame", BAD,
        raw(SYN6.but(extensions=((HOP_BY_HOP, bytes(6)),)), (41, 200))),
    Row("extension header cut off", BAD,
        SYN6.but(transport=Other(DESTINATION), length=1, trailer=b"\x06")),
    Row("two fragment headers", BAD,
        SYN6.but(transport=Other(FRAGMENT, bytes((6, 0, 0, 1, 0, 0, 0, 1)) + bytes(20)), more=True)),
    Row("seven extension headers before the eighth", BAD,
        SYN6.but(extensions=tuple((ROUTING, bytes(6)) for _ in range(7)))),
    # TCP and UDP
    Row("TCP header shorter than itself", BAD, raw(SYN4, (32, 0x40))),
    Row("TCP header longer than the packet", BAD, raw(SYN4, (32, 0xF0))),
    Row("TCP opening and closing at once", BAD, SYN4.but(transport__flags="SF")),
    Row("TCP opening and resetting at once", BAD, SYN6.but(transport__flags="SR")),
    Row("TCP without a flag", BAD, SYN4.but(transport__flags="")),
    Row("TCP with nothing but urgent data", BAD, SYN6.but(transport__flags="UP")),
    Row("UDP length below its header", BAD, UDP4.but(transport__length=7)),
    Row("UDP length beyond the packet", BAD, UDP4.but(transport__length=13)),
    Row("UDP length of nothing", BAD, UDP6.but(transport__length=0)),
    # What no flow carries
    Row("IPv4 options at a listener", UNSUPPORTED, SYN4.but(options=b"\x07\x07\x04" + bytes(5))),
    Row("IPv4 source route at a listener", UNSUPPORTED, UDP4.but(options=b"\x83\x07\x04\x0a\x02\0\x02\0")),
    Row("hop-by-hop options at a listener", UNSUPPORTED, SYN6.but(extensions=((HOP_BY_HOP, bytes(6)),))),
    Row("a routing header at a listener", UNSUPPORTED, UDP6.but(extensions=((ROUTING, bytes(22)),))),
    Row("six extension headers at a listener", UNSUPPORTED,
        SYN6.but(extensions=tuple((DESTINATION, bytes(14)) for _ in range(6)))),
    # What belongs to the host
    Row("ping", HOST, packet("10.1.0.2", "10.1.0.1", Icmp(8, payload=bytes(56)), link=FROM_CLIENT)),
    Row("IPv6 ping", HOST, packet("fd01::2", "fd01::1", Icmp(128, payload=bytes(56)), link=FROM_CLIENT)),
    Row("another protocol", HOST, packet("10.1.0.2", "10.1.0.1", Other(47, bytes(20)), link=FROM_CLIENT)),
    Row("options to a port without a listener", HOST, SYN4.but(transport__destination=81, options=bytes(4))),
    Row("hop-by-hop options to a port without a listener", HOST,
        SYN6.but(transport__destination=81, extensions=((HOP_BY_HOP, bytes(134)),))),
)  # fmt: skip


@pytest.mark.parametrize(
    ("row", "tier"),
    [pytest.param(row, tier, id=f"{row.sentence}-{tier}") for row in ROWS for tier in row.tiers],
)
def test_row(bed: Bed, tier: Tier, row: Row) -> None:
    bed.apply(plan(*OPEN))
    frame = row.frame if isinstance(row.frame, bytes) else row.frame.build()
    outcome = bed.send(tier, frame)
    expected = Action.PASS if row.reason is HOST else Action.DROP
    assert (outcome.reason, outcome.action) == (row.reason, expected)
    assert outcome.frame == frame
    assert [bed.count(table) for table in ("flows", "opening", "fragments")] == [0, 0, 0]


@pytest.mark.parametrize("first", [SYN4, UDP4, SYN6, UDP6], ids=["tcp4", "udp4", "tcp6", "udp6"])
def test_options_on_a_flow_are_dropped_and_harm_nothing(bed: Bed, tier: Tier, first: Packet) -> None:
    bed.apply(plan(*OPEN))
    talk = Talk.established(bed, tier, first)
    options = (
        {"options": b"\x94\x04\0\0"} if first.version == 4 else {"extensions": ((DESTINATION, bytes(6)),)}
    )
    for outcome in (talk.ask(**options), talk.answer(**options)):
        assert (outcome.reason, outcome.action) == (UNSUPPORTED, Action.DROP)
    flags = {"transport__flags": "A"} if isinstance(first.transport, Tcp) else {}
    check_frame(talk.ask(**flags).frame, talk.asked(**flags))


@pytest.mark.parametrize("frame", [SYN4.but(link__tags=(0,)), UDP6.but(link__tags=(0x6000,))])
def test_xdp_leaves_priority_tagged_frames_to_tc(bed: Bed, frame: Packet) -> None:
    """Which finds the tag taken off the frame by the kernel; `test_live.py` shows what it does with it."""
    bed.apply(plan(*OPEN))
    raw_frame = frame.build()
    assert bed.runners["xdp"].run(raw_frame, bed.ifindex[INSIDE]) == (Action.PASS, raw_frame)
    assert bed.counters.difference() == {Reason.HANDED_UP: (1, 0)}
