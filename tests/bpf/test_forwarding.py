"""What a packet of a flow comes out as, to the byte."""

from dataclasses import dataclass
from typing import Any

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.model.reason import Reason
from tests.bpf.bed import FROM_CLIENT, INSIDE, OUTSIDE, TO_CLIENT, TO_SERVER, Action, Bed, Tier
from tests.bpf.packets import Link, Packet, Tcp, Udp
from tests.bpf.policies import OPEN
from tests.bpf.talk import NAT_PORT, Talk, check_frame, from_client
from tests.policy.build import plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

TCP4, UDP4 = from_client(Tcp(40000, 80)), from_client(Udp(40000, 80, b"question"))
TCP6 = from_client(Tcp(40000, 80), "fd01::2", "fd01::1")
UDP6 = from_client(Udp(40000, 80, b"question"), "fd01::2", "fd01::1")
FIRSTS = {"tcp4": TCP4, "tcp6": TCP6, "udp4": UDP4, "udp6": UDP6}
EACH = pytest.mark.parametrize("first", FIRSTS.values(), ids=FIRSTS)


@pytest.fixture(autouse=True)
def policy(bed: Bed) -> None:
    bed.apply(plan(*OPEN))


@EACH
def test_first_packet_leaves_its_link_header_to_the_neighbour_table(
    bed: Bed, tier: Tier, first: Packet
) -> None:
    talk = Talk.open(bed, tier, first)
    check_frame(talk.ask().frame, talk.asked())
    bed.reset()
    bed.apply(plan(*OPEN))
    outcome = bed.send(tier, first)
    check_frame(outcome.frame, talk.asked(link=FROM_CLIENT))
    assert outcome.handed_up is (tier == "xdp")


@EACH
def test_flow_goes_out_by_the_servers_side_and_back_by_the_clients(
    bed: Bed, tier: Tier, first: Packet
) -> None:
    talk = Talk.established(bed, tier, first)
    forward, back = bed.flow(talk.asks), bed.flow(talk.answers)
    assert forward is not None
    assert back is not None
    assert (forward.ifindex, back.ifindex) == (bed.ifindex[OUTSIDE], bed.ifindex[INSIDE])
    assert layouts.read_port(forward.source_port) == NAT_PORT
    assert (forward.own_mac, forward.next_hop) == (TO_SERVER.source, TO_SERVER.destination)
    assert (back.own_mac, back.next_hop) == (TO_CLIENT.source, TO_CLIENT.destination)
    assert forward.id == back.id


@dataclass(frozen=True)
class Shape:
    """A packet in the middle of a flow."""

    sentence: str
    changes: dict[str, Any]
    firsts: tuple[Packet, ...] = (TCP4, TCP6, UDP4, UDP6)


SHAPES = (
    Shape("empty", {"transport__payload": b""}),
    Shape("an odd number of bytes", {"transport__payload": b"abc"}),
    Shape("as large as the link", {"transport__payload": bytes(range(256)) * 5}),
    Shape("all ones", {"transport__payload": b"\xff" * 1000}),
    Shape("last hop but one", {"ttl": 2}),
    Shape("marked by congestion and class", {"tos": 0xB9 | 3}),
    Shape("not to be fragmented", {"dont_fragment": True, "ident": 0}, (TCP4, UDP4)),
    Shape("padded by Ethernet", {"transport__payload": b"", "trailer": b"\x55" * 6}),
    Shape(
        "TCP options",
        {"transport__options": bytes.fromhex("0101080a0000000100000002"), "transport__flags": "A"},
        (TCP4, TCP6),
    ),
    Shape(
        "every flag that data has", {"transport__flags": "PAUEC", "transport__sequence": 2**32 - 1}, (TCP4,)
    ),
    Shape("zero checksum of UDP over IPv4 stays zero", {"transport__check": 0}, (UDP4,)),
    Shape("wrong checksum is not made right", {"transport__check": 0x1234}),
)


@pytest.mark.parametrize("way", ["ask", "answer"])
@pytest.mark.parametrize(
    ("shape", "first"),
    [
        pytest.param(shape, first, id=f"{shape.sentence}-{name}")
        for shape in SHAPES
        for name, first in FIRSTS.items()
        if first in shape.firsts
    ],
)
def test_shape(bed: Bed, tier: Tier, shape: Shape, first: Packet, way: str) -> None:
    talk = Talk.established(bed, tier, first)
    changes = {"transport__flags": "A"} if isinstance(first.transport, Tcp) else {}
    changes |= shape.changes
    outcome = getattr(talk, way)(**changes)
    assert (outcome.reason, outcome.action) == (Reason.FORWARDED, Action.REDIRECT)
    assert outcome.handed_up is False
    wanted = talk.asked(**changes) if way == "ask" else talk.answered(**changes)
    check = shape.changes.get("transport__check", 0)
    if check:
        # As wrong as it was: off by as much as before from what is right.
        before = (talk.asks if way == "ask" else talk.answers).but(**changes)
        wanted = wanted.but(transport__check=_as_wrong(before, wanted))
    check_frame(outcome.frame, wanted)


def _as_wrong(before: Packet, after: Packet) -> int:
    """The checksum of `after` that differs from the right one by what that of `before` does (RFC 1624)."""

    def right(packet: Packet) -> int:
        at = 16 if isinstance(packet.transport, Tcp) else 6
        return int.from_bytes(packet.but(transport__check=None).payload()[at : at + 2])

    assert isinstance(before.transport, Tcp | Udp)
    assert before.transport.check is not None
    return (before.transport.check - right(before) + right(after)) % 0xFFFF or 0xFFFF


@EACH
def test_both_directions_are_counted_exactly(bed: Bed, tier: Tier, first: Packet) -> None:
    talk = Talk.established(bed, tier, first)
    before = [bed.flow(packet) for packet in (talk.asks, talk.answers)]
    sent = [talk.ask(transport__payload=bytes(size), trailer=bytes(9)).octets for size in (0, 1, 700)]
    got = [talk.answer(transport__payload=bytes(size)).octets for size in (3, 1200)]
    header = {("tcp", 4): 40, ("tcp", 6): 60, ("udp", 4): 28, ("udp", 6): 48}
    each = header["tcp" if isinstance(first.transport, Tcp) else "udp", first.version]
    if isinstance(first.transport, Udp):
        # A SYN in the middle of a flow is still a packet of it, so TCP needs no other flags here.
        assert bed.is_established(first)
    assert (sent, got) == ([each, each + 1, each + 700], [each + 3, each + 1200])
    after = [bed.flow(packet) for packet in (talk.asks, talk.answers)]
    differences = [
        (new.packets - old.packets, new.octets - old.octets)
        for old, new in zip(before, after, strict=True)
        if old and new
    ]
    assert differences == [(3, sum(sent)), (2, sum(got))]


def test_segments_of_an_offloaded_buffer_are_counted_as_on_the_wire(bed: Bed) -> None:
    talk = Talk.established(bed, "tc", TCP4)
    before = bed.flow(talk.asks)
    buffer = talk.asks.but(transport__flags="A", transport__payload=bytes(3000))
    outcome = bed.send("tc", buffer, segments=(3, 1000))
    check_frame(outcome.frame, talk.asked(transport__flags="A", transport__payload=bytes(3000)))
    after = bed.flow(talk.asks)
    assert before is not None
    assert after is not None
    assert (after.packets - before.packets, after.octets - before.octets) == (3, 3 * (40 + 1000))


@EACH
def test_way_out_is_looked_up_again_when_routes_change(bed: Bed, tier: Tier, first: Packet) -> None:
    talk = Talk.established(bed, tier, first)
    assert talk.ask().frame[:6] == TO_SERVER.destination
    bed.settings.routes_changed()
    renewed = talk.ask()
    assert renewed.handed_up is (tier == "xdp")
    check_frame(renewed.frame, talk.asked(link=FROM_CLIENT))
    check_frame(talk.ask().frame, talk.asked())


def test_xdp_hands_up_what_goes_out_by_an_interface_without_native_xdp(bed: Bed) -> None:
    bed.know_interface(OUTSIDE, native=False)
    talk = Talk.established(bed, "xdp", TCP4)
    assert talk.ask(transport__flags="A").handed_up is True
    assert talk.answer().handed_up is False


@pytest.mark.parametrize("first", [TCP4, TCP6], ids=["v4", "v6"])
def test_frame_for_another_host_on_the_link_is_left_alone(bed: Bed, tier: Tier, first: Packet) -> None:
    talk = Talk.established(bed, tier, first)
    others = Link(bytes.fromhex("02000000dead"), FROM_CLIENT.source)
    asks = talk.asks.but(link=others, transport__flags="A")
    for packet in (asks, asks.but(transport__source=9), asks.but(destination=talk.answers.source)):
        outcome = bed.send(tier, packet)
        assert (outcome.reason, outcome.action) == (Reason.PASSED_TO_HOST, Action.PASS)
        assert outcome.handed_up is (tier == "xdp")


def test_xdp_leaves_all_of_an_interface_it_does_not_know_to_tc(bed: Bed) -> None:
    talk = Talk.established(bed, "xdp", TCP4)
    bed.know_interface(INSIDE, native=True)
    assert talk.ask(transport__flags="A").handed_up is False
    bed.maps["interfaces"].set(layouts.U32.pack(bed.ifindex[INSIDE]), bytes(layouts.INTERFACE.size))
    assert talk.ask(transport__flags="A").handed_up is True
