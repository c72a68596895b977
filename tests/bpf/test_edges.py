"""Routed traffic at the network's edges: errors about it, our own errors, and ways out that move."""

from collections.abc import Iterator

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.model.reason import Reason
from tests.bpf.bed import (
    FROM_CLIENT,
    FROM_SERVER,
    INSIDE,
    OUTSIDE,
    TO_CLIENT,
    Action,
    Bed,
    Tier,
)
from tests.bpf.packets import Icmp, Packet, Tcp, Udp, packet
from tests.bpf.policies import OFFICE
from tests.bpf.reading import read
from tests.bpf.talk import check_frame
from tests.bpf.test_icmp import EXPIRED, KINDS, ROUTERS, error
from tests.policy.build import mapping, plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

OUT = mapping("out", "office", "external", protocols="tcp,udp,icmp")
V4, V6 = ("10.1.0.2", "10.2.0.2"), ("fd01::2", "fd02::2")
ASKS = {
    "tcp4": packet(*V4, Tcp(40000, 443), link=FROM_CLIENT),
    "tcp6": packet(*V6, Tcp(40000, 443), link=FROM_CLIENT),
    "udp4": packet(*V4, Udp(40000, 53, b"question"), link=FROM_CLIENT),
    "udp6": packet(*V6, Udp(40000, 53, b"question"), link=FROM_CLIENT),
    "echo4": packet(*V4, Icmp(8, value=0x70000001, payload=bytes(56)), link=FROM_CLIENT),
    "echo6": packet(*V6, Icmp(128, value=0x70000001, payload=bytes(56)), link=FROM_CLIENT),
}
EVERY = pytest.mark.parametrize("asks", ASKS.values(), ids=ASKS)


def masquerade(bed: Bed, own: bytes, v4: str = "10.2.0.1", v6: str = "fd02::1") -> None:
    """What leaves by that interface has these sources."""
    packed = [
        layouts.pack_address(packet(each, each, Tcp(1, 1)).source).ljust(128, b"\0") for each in (v4, v6)
    ]
    bed.maps["nat_pools"].set(layouts.U32.pack(bed.ifindex[own]), layouts.NAT_POOL.struct.pack(*packed, 1, 1))


@pytest.fixture(autouse=True, params=["plain", "masquerade"])
def nat(bed: Bed, request: pytest.FixtureRequest) -> Iterator[bool]:
    bed.apply(plan(OFFICE, OUT))
    bed.settings.prepare(NatPorts())
    if request.param == "masquerade":
        masquerade(bed, OUTSIDE)
    yield request.param == "masquerade"
    for table in ("nat_pools", "own_addresses"):
        bed.maps[table].delete_many(list(bed.maps[table].keys()))


def opened(bed: Bed, tier: Tier, asks: Packet) -> Packet:
    """Send it, and an answer; what it went on as."""
    outcome = bed.send(tier, asks)
    assert outcome.reason is Reason.FORWARDED
    sent = read(outcome.frame).packet
    assert sent is not None
    assert bed.send(tier, answer_to(sent)).reason is Reason.FORWARDED
    return sent


def answer_to(sent: Packet) -> Packet:
    back = {"source": sent.destination, "destination": sent.source, "link": FROM_SERVER, "ttl": 64}
    transport = sent.transport
    if isinstance(transport, Icmp):
        return sent.but(**back, transport__type=0 if sent.version == 4 else 129)
    assert isinstance(transport, Tcp | Udp)
    ports = {"transport__source": transport.destination, "transport__destination": transport.source}
    flags = {"transport__flags": "SA"} if isinstance(transport, Tcp) else {}
    return sent.but(**back, **ports, **flags)


@EVERY
@pytest.mark.parametrize("kind", KINDS)
def test_error_about_what_the_client_sent_quotes_just_that(
    bed: Bed, tier: Tier, nat: bool, asks: Packet, kind: str
) -> None:
    sent = opened(bed, tier, asks)
    assert (sent.source != asks.source) is nat
    router = ROUTERS[asks.version]
    outcome = bed.send(tier, error(router, sent, kind).but(link=FROM_SERVER))
    assert (outcome.reason, outcome.action) == (Reason.FORWARDED, Action.REDIRECT)
    wanted = error(router, asks.but(ttl=63, link=sent.link), kind).but(link=TO_CLIENT, ttl=63)
    check_frame(outcome.frame, wanted)


@EVERY
def test_error_about_an_answer_reaches_the_server(bed: Bed, tier: Tier, nat: bool, asks: Packet) -> None:
    """From the router where that is no secret, from the appliance where the client is."""
    sent = opened(bed, tier, asks)
    back = answer_to(sent)
    outcome = bed.send(tier, back)
    got = read(outcome.frame).packet
    assert got is not None
    arriving = error(ROUTERS[asks.version], got, EXPIRED).but(link=FROM_CLIENT)
    outcome = bed.send(tier, arriving)
    assert outcome.reason is Reason.FORWARDED
    told = read(outcome.frame)
    assert told.problems == []
    assert told.packet is not None
    wanted = error(ROUTERS[asks.version], back.but(ttl=63), EXPIRED).but(link=told.link, ttl=63)
    check_frame(outcome.frame, wanted.but(source=sent.source) if nat else wanted)


@EVERY
def test_our_own_errors_come_from_us_and_quote_the_original(
    bed: Bed, tier: Tier, nat: bool, asks: Packet
) -> None:
    own = packet("10.1.0.77", "10.1.0.77", Tcp(1, 1)).source if asks.version == 4 else asks.source + 0x75
    both = own, own
    bed.maps["own_addresses"].set(
        layouts.U32.pack(bed.ifindex[INSIDE]), b"".join(layouts.pack_address(each) for each in both)
    )
    opened(bed, tier, asks)
    late = asks.but(ttl=1)
    outcome = bed.send(tier, late)
    assert (outcome.reason, outcome.action) == (Reason.TTL_EXPIRED, Action.REDIRECT)
    told = read(outcome.frame)
    assert told.problems == []
    assert told.packet is not None
    assert (told.packet.source, told.packet.destination) == (own, asks.source)
    assert isinstance(told.packet.transport, Icmp)
    quoted = told.packet.transport.payload
    assert late.build()[14:].startswith(quoted)


@EVERY
def test_way_out_that_moves_is_followed_where_the_source_belongs(
    bed: Bed, tier: Tier, nat: bool, asks: Packet
) -> None:
    """To the interface that the client is behind, which masquerades with another address if at all."""
    opened(bed, tier, asks)
    later = asks.but(transport__flags="A") if isinstance(asks.transport, Tcp) else asks
    if nat:
        masquerade(bed, INSIDE, "10.1.0.1", "fd01::1")
    gateway = "10.1.0.3" if asks.version == 4 else "fd01::3"
    way = f"{asks.destination}/{asks.destination.max_prefixlen}"
    bed.host.ip(f"route add {way} via {gateway}")
    try:
        bed.settings.routes_changed()
        outcome = bed.send(tier, later)
        if not nat:
            assert outcome.reason is Reason.FORWARDED
            return
        assert outcome.reason is Reason.REROUTED
        assert bed.count("flows") == bed.count("opening") == 0, "so that the next packet begins anew"
        begun = bed.send(tier, asks)
        assert begun.reason is Reason.FORWARDED
        sent = read(begun.frame).packet
        assert sent is not None
        assert str(sent.source) == ("10.1.0.1" if asks.version == 4 else "fd01::1")
    finally:
        bed.host.ip(f"route delete {way} via {gateway}")


@EVERY
def test_shared_source_address_is_followed_too(bed: Bed, tier: Tier, nat: bool, asks: Packet) -> None:
    opened(bed, tier, asks)
    if nat:
        masquerade(bed, INSIDE)
    gateway = "10.1.0.3" if asks.version == 4 else "fd01::3"
    way = f"{asks.destination}/{asks.destination.max_prefixlen}"
    bed.host.ip(f"route add {way} via {gateway}")
    try:
        bed.settings.routes_changed()
        later = asks.but(transport__flags="A") if isinstance(asks.transport, Tcp) else asks
        assert bed.send(tier, later).reason is Reason.FORWARDED
    finally:
        bed.host.ip(f"route delete {way} via {gateway}")
