"""Resets and ICMP errors: to the byte, to whom they may go, and how many."""

import time
from ipaddress import IPv4Address, IPv6Address

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.model.reason import Reason
from tests.bpf import reference
from tests.bpf.bed import FROM_CLIENT, INSIDE, OUTSIDE, Action, Bed, Outcome, Tier
from tests.bpf.packets import Icmp, Link, Other, Packet, Tcp, Udp, packet
from tests.bpf.policies import OPEN, WEB
from tests.bpf.reading import read
from tests.bpf.refusal import answer_to
from tests.bpf.talk import Talk, check_frame, from_client
from tests.policy.build import mapping, plan, service

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

FAMILIES = pytest.mark.parametrize(("client", "own"), [("10.1.0.2", "10.1.0.1"), ("fd01::2", "fd01::1")])
OWN4, OWN6 = IPv4Address("10.1.0.99"), IPv6Address("fd01::99")
NOBODY = service("nobody", "192.0.2.1", "2001:db8::1")
CLOSED = (NOBODY, WEB, mapping("closed", "nobody", "web", "*:80", protocols="tcp,udp"))


def check_refused(outcome: Outcome, reason: Reason, refused: Packet, mtu: int = 0) -> None:
    """Answered as it must be, with every checksum right."""
    assert (outcome.reason, outcome.action) == (reason, Action.REDIRECT)
    frame = refused.build()
    understood = reference.read(frame)
    assert not isinstance(understood, reference.Unread)
    answer = answer_to(frame, understood, reason, mtu)
    assert answer is not None
    check_frame(outcome.frame, answer)
    assert read(outcome.frame).problems == []


def check_dropped(outcome: Outcome, reason: Reason) -> None:
    assert (outcome.reason, outcome.action) == (reason, Action.DROP)


@FAMILIES
@pytest.mark.parametrize(
    "segment",
    [
        Tcp(40000, 80, "S", 2**32 - 1),
        Tcp(40000, 80, "S", 77, payload=b"fast open", options=b"\x22\x04\0\0"),
        Tcp(40000, 80, "SEC", 9),
    ],
    ids=["wraps", "data", "ecn"],
)
def test_denied_client_is_reset(bed: Bed, tier: Tier, client: str, own: str, segment: Tcp) -> None:
    bed.apply(plan(*CLOSED))
    asked = from_client(segment, client, own, trailer=b"\x77" * 20)
    check_refused(bed.send(tier, asked), Reason.NO_MAPPING, asked)


@FAMILIES
@pytest.mark.parametrize(
    "segment",
    [
        Tcp(40000, 80, "A", 5, 2**32 - 1),
        Tcp(40000, 80, "PA", 5, 6, payload=bytes(1000)),
        Tcp(40000, 80, "FA", 5, 6),
        Tcp(40000, 80, "SA", 5, 6),
        Tcp(40000, 80, "F", 5, payload=b"abc"),
    ],
    ids=lambda segment: f"{segment.flags}{len(segment.payload)}",
)
def test_segment_of_no_flow_is_reset(bed: Bed, tier: Tier, client: str, own: str, segment: Tcp) -> None:
    bed.apply(plan(*OPEN))
    asked = from_client(segment, client, own)
    check_refused(bed.send(tier, asked), Reason.NO_FLOW, asked)
    assert bed.count("opening") == 0


@FAMILIES
def test_reset_is_never_answered(bed: Bed, tier: Tier, client: str, own: str) -> None:
    bed.apply(plan(*OPEN))
    for flags in ("R", "RA"):
        check_dropped(bed.send(tier, from_client(Tcp(40000, 80, flags), client, own)), Reason.NO_FLOW)


@FAMILIES
def test_denied_datagram_is_prohibited(bed: Bed, tier: Tier, client: str, own: str) -> None:
    bed.apply(plan(*CLOSED))
    for payload in (b"", b"q", bytes(1400)):
        asked = from_client(Udp(40000, 80, payload), client, own)
        check_refused(bed.send(tier, asked), Reason.NO_MAPPING, asked)


@pytest.mark.parametrize(
    "denied",
    [
        packet("10.1.0.2", "10.2.0.2", Icmp(0, payload=b"pong"), link=FROM_CLIENT),
        packet("fd01::2", "fd02::2", Icmp(129, payload=b"pong"), link=FROM_CLIENT),
        packet("10.1.0.2", "10.2.0.2", Icmp(13, payload=bytes(12)), link=FROM_CLIENT),
        packet("fd01::2", "fd02::2", Icmp(138, payload=bytes(12)), link=FROM_CLIENT),
        packet("10.1.0.2", "10.2.0.2", Other(47, bytes(40)), link=FROM_CLIENT),
        packet("fd01::2", "fd02::2", Other(50, bytes(40)), link=FROM_CLIENT),
    ],
    ids=["echo reply", "echo reply 6", "timestamp", "renumbering", "gre", "esp"],
)
def test_transit_of_other_protocols_is_dropped_without_an_answer(
    bed: Bed, tier: Tier, denied: Packet
) -> None:
    check_dropped(bed.send(tier, denied), Reason.NO_MAPPING)


@pytest.mark.parametrize("ends", [("10.1.0.2", "10.2.0.2"), ("fd01::2", "fd02::2")], ids=["v4", "v6"])
def test_denied_ping_is_told_at_once(bed: Bed, tier: Tier, ends: tuple[str, str]) -> None:
    asked = packet(*ends, Icmp(8 if "." in ends[0] else 128, payload=b"ping"), link=FROM_CLIENT)
    check_refused(bed.send(tier, asked), Reason.NO_MAPPING, asked)


@pytest.mark.parametrize("ends", [("10.1.0.2", "10.2.0.2"), ("fd01::2", "fd02::2")], ids=["v4", "v6"])
@pytest.mark.parametrize("kind", ["udp", "echo"])
def test_error_comes_from_the_interface_and_a_reset_from_whom_was_asked(
    bed: Bed, tier: Tier, ends: tuple[str, str], kind: str
) -> None:
    four = "." in ends[0]
    transport = Udp(5, 6, b"hello") if kind == "udp" else Icmp(8 if four else 128, payload=b"ping")
    own = layouts.OWN_ADDRESSES.struct.pack(layouts.pack_address(OWN4), layouts.pack_address(OWN6))
    bed.maps["own_addresses"].set(layouts.U32.pack(bed.ifindex[INSIDE]), own)
    try:
        denied = packet(*ends, transport, link=FROM_CLIENT)
        answer = read(bed.send(tier, denied).frame)
        assert answer.packet is not None
        assert answer.problems == []
        assert answer.packet.source == (OWN4 if four else OWN6)
        assert isinstance(answer.packet.transport, Icmp)
        quoted = denied.build()[14:]
        assert answer.packet.transport.payload == quoted[: len(answer.packet.transport.payload)]
        check_refused(bed.send(tier, reset := denied.but(transport=Tcp(5, 6))), Reason.NO_MAPPING, reset)
    finally:
        bed.maps["own_addresses"].delete(layouts.U32.pack(bed.ifindex[INSIDE]))


def test_transit_between_servers_and_clients_is_refused_on_the_side_it_came_from(
    bed: Bed, tier: Tier
) -> None:
    asked = packet("10.2.0.2", "10.1.0.2", Tcp(5, 6), link=Link(OUTSIDE, bytes.fromhex("020000020002")))
    check_refused(bed.send(tier, asked), Reason.NO_MAPPING, asked)


@FAMILIES
@pytest.mark.parametrize("transport", [Tcp(40000, 80, "A", payload=bytes(99)), Udp(40000, 80, bytes(99))])
@pytest.mark.parametrize("ttl", [0, 1])
def test_last_hop_is_told(
    bed: Bed, tier: Tier, client: str, own: str, transport: Tcp | Udp, ttl: int
) -> None:
    bed.apply(plan(*OPEN))
    first = Tcp(40000, 80) if isinstance(transport, Tcp) else transport
    talk = Talk.established(bed, tier, from_client(first, client, own))
    late = from_client(transport, client, own, ttl=ttl)
    check_refused(bed.send(tier, late), Reason.TTL_EXPIRED, late)
    answer = talk.answers.but(ttl=ttl)
    check_refused(bed.send(tier, answer), Reason.TTL_EXPIRED, answer)


@FAMILIES
def test_last_hop_opens_no_flow(bed: Bed, tier: Tier, client: str, own: str) -> None:
    bed.apply(plan(*OPEN))
    late = from_client(Tcp(40000, 80), client, own, ttl=1)
    check_refused(bed.send(tier, late), Reason.TTL_EXPIRED, late)
    assert bed.count("opening") == 0


@FAMILIES
@pytest.mark.parametrize("kind", [Tcp, Udp])
def test_too_large_is_told_the_mtu(
    bed: Bed, tier: Tier, client: str, own: str, kind: type[Tcp] | type[Udp]
) -> None:
    bed.apply(plan(*OPEN))
    bed.host.ip("link set outside0 mtu 1400")
    try:
        talk = Talk.established(bed, tier, from_client(kind(40000, 80), client, own))
        header = (20 if talk.asks.version == 4 else 40) + (20 if kind is Tcp else 8)
        flags = {"transport__flags": "A"} if kind is Tcp else {}
        fits = talk.ask(transport__payload=bytes(1400 - header), **flags)
        assert fits.reason is Reason.FORWARDED
        large = talk.asks.but(transport__payload=bytes(1401 - header), dont_fragment=True, **flags)
        check_refused(bed.send(tier, large), Reason.TOO_BIG, large, 1400)
        assert talk.answer(transport__payload=bytes(1401 - header)).reason is Reason.FORWARDED
    finally:
        bed.host.ip("link set outside0 mtu 1500")


@FAMILIES
def test_offloaded_buffer_is_as_large_as_its_segments(bed: Bed, client: str, own: str) -> None:
    bed.apply(plan(*OPEN))
    bed.host.ip("link set outside0 mtu 1400")
    try:
        talk = Talk.established(bed, "tc", from_client(Tcp(40000, 80), client, own))
        mss = 1400 - (40 if talk.asks.version == 4 else 60)
        buffer = talk.asks.but(transport__flags="A", transport__payload=bytes(3000))
        assert bed.send("tc", buffer, segments=(3, mss)).reason is Reason.FORWARDED
        large = bed.send("tc", buffer, segments=(3, mss + 1))
        check_refused(large, Reason.TOO_BIG, buffer, 1400)
    finally:
        bed.host.ip("link set outside0 mtu 1500")


@FAMILIES
def test_no_way_out_is_a_passing_condition_and_no_reset(bed: Bed, tier: Tier, client: str, own: str) -> None:
    bed.apply(plan(*OPEN))
    talk = Talk.established(bed, tier, from_client(Tcp(40000, 80), client, own))
    backend = f"{talk.answers.source}/{talk.answers.source.max_prefixlen}"
    bed.host.ip(f"route add unreachable {backend}")
    try:
        bed.settings.routes_changed()
        lost = talk.asks.but(transport__flags="A", transport__payload=b"data")
        check_refused(bed.send(tier, lost), Reason.NO_ROUTE, lost)
    finally:
        bed.host.ip(f"route delete unreachable {backend}")
    bed.settings.routes_changed()
    assert talk.ask(transport__flags="A").reason is Reason.FORWARDED


@FAMILIES
def test_backend_without_route_opens_no_flow(bed: Bed, tier: Tier, client: str, own: str) -> None:
    far = service("far", "203.0.113.1", "2001:db8:f::1", port=8080)
    bed.host.ip("route add unreachable 203.0.113.0/24", "route add unreachable 2001:db8:f::/48")
    try:
        bed.apply(plan(far, mapping("far", "all", "far", "*:80")))
        asked = from_client(Tcp(40000, 80), client, own)
        check_refused(bed.send(tier, asked), Reason.NO_ROUTE, asked)
        assert bed.count("opening") == 0
    finally:
        bed.host.ip("route delete unreachable 203.0.113.0/24", "route delete unreachable 2001:db8:f::/48")


def test_refusals_stop_at_their_limit_and_start_again_with_the_second(bed: Bed, tier: Tier) -> None:
    bed.settings.change(refusals_per_second=3)
    asked = from_client(Tcp(40000, 80), destination="10.2.0.2")

    def second_of_refusals() -> list[Action]:
        return [bed.send(tier, asked).action for _ in range(20)]

    limited = second_of_refusals()
    # Twenty packets take a millisecond, so they can meet one turn of the second and one other CPU at most.
    assert Action.REDIRECT in limited
    assert 20 > limited.count(Action.DROP) >= 20 - 4 * 3
    deadline = time.monotonic() + 30
    while bed.send(tier, asked).action is Action.DROP:
        assert time.monotonic() < deadline, "the limit is for each second"


def test_without_a_limit_nothing_is_answered(bed: Bed, tier: Tier) -> None:
    bed.settings.change(refusals_per_second=0)
    asked = from_client(Tcp(40000, 80), destination="10.2.0.2")
    check_dropped(bed.send(tier, asked), Reason.NO_MAPPING)


def test_a_silent_appliance_denies_without_a_word(bed: Bed, tier: Tier) -> None:
    bed.apply(plan(*OPEN, *CLOSED[:1]))
    bed.settings.change(silent=1)
    elsewhere = from_client(Tcp(40000, 25), "10.1.0.2", "192.0.2.9")
    check_dropped(bed.send(tier, elsewhere), Reason.NO_MAPPING)
    check_dropped(bed.send(tier, from_client(Tcp(40000, 80, "A"))), Reason.NO_FLOW)
    late = from_client(Tcp(40000, 80), ttl=1)
    check_refused(bed.send(tier, late), Reason.TTL_EXPIRED, late)


def test_strangers_outside_hear_of_listeners_only(bed: Bed, tier: Tier) -> None:
    bed.apply(plan(*CLOSED))
    through = from_client(Tcp(40000, 25), "10.1.0.2", "192.0.2.9")
    listening = from_client(Tcp(40000, 80))
    bed.know_interface(INSIDE, native=True, role=layouts.ROLE_INSIDE)
    check_refused(bed.send(tier, through), Reason.NO_MAPPING, through)
    check_refused(bed.send(tier, listening), Reason.NO_MAPPING, listening)
    bed.know_interface(INSIDE, native=True, role=layouts.ROLE_OUTSIDE)
    check_dropped(bed.send(tier, through), Reason.NO_MAPPING)
    check_dropped(bed.send(tier, through.but(transport__flags="A")), Reason.NO_FLOW)
    check_refused(bed.send(tier, listening), Reason.NO_MAPPING, listening)
