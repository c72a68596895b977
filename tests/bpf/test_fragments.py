"""Later fragments have no ports: they go where their first one went, and add up to the same datagram."""

import random

import pytest

from marchproxy.model.reason import Reason
from tests.bpf.bed import TO_CLIENT, TO_SERVER, Action, Bed, Tier
from tests.bpf.packets import Other, Packet, Tcp, Udp
from tests.bpf.policies import OPEN
from tests.bpf.reading import compare, read
from tests.bpf.talk import Talk, check_frame, from_client
from tests.policy.build import plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

PAYLOAD = random.Random(791).randbytes(3001)
UDP4 = from_client(Udp(40000, 80, b"question"))
UDP6 = from_client(Udp(40000, 80, b"question"), "fd01::2", "fd01::1")
EACH = pytest.mark.parametrize("first", [UDP4, UDP6], ids=["v4", "v6"])


@pytest.fixture(autouse=True)
def policy(bed: Bed) -> None:
    bed.apply(plan(*OPEN))


def send_all(bed: Bed, tier: Tier, frames: list[bytes]) -> list[bytes]:
    """Send frames that must all be forwarded; what comes out."""
    outcomes = [bed.send(tier, frame) for frame in frames]
    assert {(outcome.reason, outcome.action) for outcome in outcomes} == {(Reason.FORWARDED, Action.REDIRECT)}
    return [outcome.frame for outcome in outcomes]


@EACH
@pytest.mark.parametrize("size", [8, 1000, 1448])
def test_datagram_in_fragments_arrives_as_a_whole_both_ways(
    bed: Bed, tier: Tier, first: Packet, size: int
) -> None:
    talk = Talk.established(bed, tier, first)
    changes = {"transport__payload": PAYLOAD if size > 8 else PAYLOAD[:100], "ident": 77}
    for arrived, wanted in (
        (talk.asks, talk.asked(**changes, link=TO_SERVER)),
        (talk.answers, talk.answered(**changes, link=TO_CLIENT)),
    ):
        out = send_all(bed, tier, arrived.but(**changes).fragments(size))
        for got, expected in zip(out, wanted.fragments(size), strict=True):
            assert got == expected, compare(got, expected)


@EACH
def test_reassembled_checksum_is_right(bed: Bed, tier: Tier, first: Packet) -> None:
    """Said once without our own idea of what the fragments look like: put together, the datagram is right."""
    talk = Talk.established(bed, tier, first)
    out = send_all(bed, tier, talk.asks.but(transport__payload=PAYLOAD).fragments(1200))
    pieces = [read(frame).packet for frame in out]
    payload = b"".join(piece.transport.payload for piece in pieces if piece)
    assert pieces[0] is not None
    whole = pieces[0].but(transport=Other(17, payload), more=False).build()
    assert read(whole).problems == []
    assert read(whole).packet == talk.asked(transport__payload=PAYLOAD)


@EACH
def test_first_packet_of_a_flow_may_come_in_fragments(bed: Bed, tier: Tier, first: Packet) -> None:
    frames = first.but(transport__payload=PAYLOAD).fragments(1400)
    send_all(bed, tier, frames)
    flow = bed.flow(first)
    assert flow is not None
    assert flow.packets == len(frames)


@EACH
def test_fragment_that_overtakes_its_first_is_dropped(bed: Bed, tier: Tier, first: Packet) -> None:
    Talk.established(bed, tier, first)
    frames = first.but(transport__payload=PAYLOAD, destination=first.destination).fragments(1400)
    late = bed.send(tier, frames[1])
    # Addressed to the appliance itself it may as well be the host's, which drops it in its own time.
    assert (late.reason, late.action) == (Reason.PASSED_TO_HOST, Action.PASS)
    send_all(bed, tier, frames)


@EACH
def test_fragment_to_elsewhere_without_its_first_is_dropped(bed: Bed, tier: Tier, first: Packet) -> None:
    through = first.but(destination=Talk.open(bed, tier, first).answers.source, transport__payload=PAYLOAD)
    stray = bed.send(tier, through.fragments(1400)[1])
    assert (stray.reason, stray.action) == (Reason.FRAGMENT, Action.DROP)


@EACH
def test_fragments_of_another_datagram_are_not_taken_along(bed: Bed, tier: Tier, first: Packet) -> None:
    Talk.established(bed, tier, first)
    datagram = first.but(transport__payload=PAYLOAD, ident=77)
    send_all(bed, tier, datagram.fragments(1400)[:1])
    strangers = (
        datagram.but(ident=78).fragments(1400)[1],
        datagram.but(transport=Other(6, bytes(64)), offset=1400).build(),
    )
    for stranger in strangers:
        assert bed.send(tier, stranger).reason is Reason.PASSED_TO_HOST


@EACH
def test_denied_first_fragment_takes_no_later_ones_along(bed: Bed, tier: Tier, first: Packet) -> None:
    through = first.but(destination=Talk.open(bed, tier, first).answers.source, transport__payload=PAYLOAD)
    frames = through.fragments(1400)
    assert bed.send(tier, frames[0]).reason is Reason.NO_MAPPING
    assert bed.send(tier, frames[1]).reason is Reason.FRAGMENT
    assert bed.count("fragments") == 0


@EACH
def test_first_fragment_too_short_for_ports_is_malformed(bed: Bed, tier: Tier, first: Packet) -> None:
    short = first.but(transport=Other(17, bytes(4)), more=True)
    assert bed.send(tier, short).reason is Reason.MALFORMED


def test_tcp_in_fragments(bed: Bed, tier: Tier) -> None:
    talk = Talk.established(bed, tier, from_client(Tcp(40000, 80)))
    changes = {"transport__flags": "A", "transport__payload": PAYLOAD}
    out = send_all(bed, tier, talk.asks.but(**changes).fragments(1480))
    for got, wanted in zip(out, talk.asked(**changes).fragments(1480), strict=True):
        check_frame(got, wanted)


def test_whole_packet_with_a_fragment_header_is_no_fragment(bed: Bed, tier: Tier) -> None:
    """An atomic fragment (RFC 6946): it keeps its header on the way."""
    talk = Talk.established(bed, tier, UDP6)
    header = ((44, bytes(2) + (0x1234).to_bytes(4)),)
    arrived = talk.asks.but(extensions=header).build()
    # `Packet` writes the fragment header's second byte as a length; it is reserved, and zero.
    assert arrived[14 + 41] == 0
    out = bed.send(tier, arrived)
    assert out.reason is Reason.FORWARDED
    check_frame(out.frame, talk.asked(extensions=header))
    assert bed.count("fragments") == 0
