"""ICMP errors of others: they reach the sender of what they quote, as if that had never been rewritten."""

from dataclasses import dataclass
from ipaddress import ip_address
from struct import pack
from typing import Any, Self

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.model.reason import Reason
from tests.bpf.bed import FROM_CLIENT, FROM_SERVER, TO_CLIENT, TO_SERVER, Action, Bed, Outcome, Tier
from tests.bpf.packets import Icmp, Packet, Tcp, Udp, packet
from tests.bpf.policies import OPEN
from tests.bpf.reading import read
from tests.bpf.talk import Talk, check_frame, from_client
from tests.policy.build import plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

UNREACHABLE, TOO_BIG, EXPIRED, PROBLEM = "unreachable", "too big", "expired", "problem"
KINDS = {
    UNREACHABLE: ((3, 3), (1, 4)),
    TOO_BIG: ((3, 4), (2, 0)),
    EXPIRED: ((11, 0), (3, 0)),
    PROBLEM: ((12, 0), (4, 0)),
}
"""Type and code, of ICMP and ICMPv6."""
FIRSTS = {
    "tcp4": from_client(Tcp(40000, 80)),
    "tcp6": from_client(Tcp(40000, 80), "fd01::2", "fd01::1"),
    "udp4": from_client(Udp(40000, 80, b"question")),
    "udp6": from_client(Udp(40000, 80, b"question"), "fd01::2", "fd01::1"),
}
ROUTERS = {4: "192.0.2.77", 6: "2001:db8:77::1"}
EVERY_FIRST = pytest.mark.parametrize("first", FIRSTS.values(), ids=FIRSTS)


@pytest.fixture(autouse=True)
def policy(bed: Bed) -> None:
    bed.apply(plan(*OPEN))


def error(
    sender: str, quoted: Packet, kind: str = UNREACHABLE, *, octets: int = 548, value: int = 0
) -> Packet:
    """What `sender` says to the source of a packet, with `octets` of that."""
    number, code = KINDS[kind][quoted.version == 6]
    message = Icmp(number, code, value, quoted.build()[14 : 14 + octets])
    return packet(sender, str(quoted.source), message)


@dataclass(slots=True)
class Scene:
    """A conversation with a large packet each way, as it arrived and as it was sent on."""

    bed: Bed
    tier: Tier
    talk: Talk

    @classmethod
    def of(cls, bed: Bed, tier: Tier, first: Packet) -> Self:
        return cls(bed, tier, Talk.established(bed, tier, first))

    @property
    def change(self) -> dict[str, Any]:
        flags = {"transport__flags": "PA"} if isinstance(self.talk.asks.transport, Tcp) else {}
        return {
            "transport__payload": bytes(range(200)) * 5,
            "dont_fragment": self.talk.asks.version == 4,
            **flags,
        }

    def from_outside(self, sender: str, **options: Any) -> tuple[Packet, Packet]:
        """An error about what the client sent, as it arrives, and as the client must get it from `sender`."""
        arriving = error(sender, self.talk.asked(**self.change), **options).but(link=FROM_SERVER)
        original = self.talk.asks.but(**self.change).but(ttl=63)
        return arriving, error(sender, original, **options).but(link=TO_CLIENT, ttl=63)

    def from_inside(self, sender: str, **options: Any) -> tuple[Packet, Packet]:
        """The same about what the server sent."""
        arriving = error(sender, self.talk.answered(**self.change), **options).but(link=FROM_CLIENT)
        original = self.talk.answers.but(**self.change).but(ttl=63)
        return arriving, error(sender, original, **options).but(link=TO_SERVER, ttl=63)

    def check(self, arriving: Packet, wanted: Packet) -> Outcome:
        outcome = self.bed.send(self.tier, arriving)
        assert (outcome.reason, outcome.action) == (Reason.FORWARDED, Action.REDIRECT)
        check_frame(outcome.frame, wanted)
        assert read(outcome.frame).problems == []
        return outcome


@EVERY_FIRST
@pytest.mark.parametrize("kind", KINDS)
def test_router_s_error_reaches_the_client(bed: Bed, tier: Tier, first: Packet, kind: str) -> None:
    scene = Scene.of(bed, tier, first)
    scene.check(*scene.from_outside(ROUTERS[first.version], kind=kind, value=1280))


@EVERY_FIRST
def test_server_s_error_comes_from_whom_the_client_asked(bed: Bed, tier: Tier, first: Packet) -> None:
    scene = Scene.of(bed, tier, first)
    arriving, wanted = scene.from_outside(str(scene.talk.answers.source))
    scene.check(arriving, wanted.but(source=first.destination))


@EVERY_FIRST
@pytest.mark.parametrize("kind", KINDS)
def test_error_from_the_client_s_side_reaches_the_server_from_the_appliance(
    bed: Bed, tier: Tier, first: Packet, kind: str
) -> None:
    """Routers there are as private as the client is (RFC 5508 REQ-5)."""
    scene = Scene.of(bed, tier, first)
    for sender in (ROUTERS[first.version], str(first.source)):
        arriving, wanted = scene.from_inside(sender, kind=kind, value=1280)
        scene.check(arriving, wanted.but(source=scene.talk.answers.destination))


@EVERY_FIRST
@pytest.mark.parametrize("transport", [8, 12, 16, 18, 40])
def test_shortest_quotations(bed: Bed, tier: Tier, first: Packet, transport: int) -> None:
    """RFC 792 wants eight bytes of transport: TCP's checksum may be missing."""
    scene = Scene.of(bed, tier, first)
    octets = (20 if first.version == 4 else 40) + transport
    scene.check(*scene.from_outside(ROUTERS[first.version], octets=octets))


@EVERY_FIRST
def test_datagram_and_answer_before_the_flow_is_established(bed: Bed, tier: Tier, first: Packet) -> None:
    talk = Talk.open(bed, tier, first)
    sender = str(talk.answers.source)
    arriving = error(sender, talk.asked()).but(link=FROM_SERVER)
    outcome = bed.send(tier, arriving)
    assert outcome.reason is Reason.FORWARDED
    check_frame(
        outcome.frame,
        error(str(first.destination), first.but(ttl=63)).but(link=outcome_link(outcome), ttl=63),
    )


def outcome_link(outcome: Outcome) -> Any:
    """Of a packet that looked its way out up, the link header is the kernel's to write."""
    return read(outcome.frame).link


@EVERY_FIRST
def test_extensions_behind_the_quotation_stay(bed: Bed, tier: Tier, first: Packet) -> None:
    """RFC 4884: the quotation's length is in the header, the extension has a checksum of its own."""
    scene = Scene.of(bed, tier, first)
    arriving, wanted = scene.from_outside(ROUTERS[first.version], octets=128)
    extension = bytes.fromhex("2000dfff 0008 0101 00012345")
    length = 128 // 4 << 16 if first.version == 4 else 128 // 8 << 24
    changes = {
        "transport__value": length,
        "transport__payload": arriving.transport.payload + extension,
    }
    wanted_changes = changes | {"transport__payload": wanted.transport.payload + extension}
    scene.check(arriving.but(**changes), wanted.but(**wanted_changes))


@pytest.mark.parametrize("first", [FIRSTS["udp4"]])
def test_datagram_without_a_checksum_stays_without(bed: Bed, tier: Tier, first: Packet) -> None:
    scene = Scene.of(bed, tier, first)
    sent = scene.talk.asked(transport__check=0)
    arriving = error(ROUTERS[4], sent).but(link=FROM_SERVER)
    wanted = error(ROUTERS[4], scene.talk.asks.but(transport__check=0, ttl=63)).but(link=TO_CLIENT, ttl=63)
    scene.check(arriving, wanted)


@pytest.mark.parametrize("first", [FIRSTS["udp4"], FIRSTS["udp6"]], ids=["v4", "v6"])
def test_first_fragment_may_be_quoted(bed: Bed, tier: Tier, first: Packet) -> None:
    scene = Scene.of(bed, tier, first)
    sent = scene.talk.asked(transport__payload=bytes(1600)).fragments(800)
    original = scene.talk.asks.but(transport__payload=bytes(1600), ttl=63).fragments(800)
    sender = ROUTERS[first.version]

    def about(frame: bytes, to: Any) -> Packet:
        number, code = KINDS[EXPIRED][first.version == 6]
        return packet(sender, str(to), Icmp(number, code, 0, frame[14 : 14 + 200]))

    arriving = about(sent[0], scene.talk.answers.destination).but(link=FROM_SERVER)
    scene.check(arriving, about(original[0], first.source).but(link=TO_CLIENT, ttl=63))
    later = about(sent[1], scene.talk.answers.destination).but(link=FROM_SERVER)
    assert bed.send(tier, later).reason is Reason.PASSED_TO_HOST


@EVERY_FIRST
def test_error_neither_prolongs_nor_ends_a_flow(bed: Bed, tier: Tier, first: Packet) -> None:
    scene = Scene.of(bed, tier, first)
    before = [bed.flow(scene.talk.asks), bed.flow(scene.talk.answers)]
    for kind in KINDS:
        scene.check(*scene.from_outside(ROUTERS[first.version], kind=kind))
    assert [bed.flow(scene.talk.asks), bed.flow(scene.talk.answers)] == before


@EVERY_FIRST
def test_error_about_something_else_is_the_host_s(bed: Bed, tier: Tier, first: Packet) -> None:
    scene = Scene.of(bed, tier, first)
    arriving, _ = scene.from_outside(ROUTERS[first.version])
    sent = scene.talk.asked(**scene.change)
    strangers = [
        sent.but(transport__source=9),
        sent.but(transport__destination=9),
        sent.but(destination=sent.destination + 1),
    ]
    for quoted in strangers:
        host = error(ROUTERS[first.version], quoted).but(link=FROM_SERVER)
        frame = host.build()
        outcome = bed.send(tier, frame)
        assert (outcome.reason, outcome.action, outcome.frame) == (Reason.PASSED_TO_HOST, Action.PASS, frame)
    # Whoever quotes a packet of ours tells its source, and no other address of ours.
    other_own = ip_address("10.1.0.1" if first.version == 4 else "fd01::1")
    outcome = bed.send(tier, arriving.but(destination=other_own))
    assert outcome.reason is Reason.PASSED_TO_HOST
    passing = ip_address("10.1.0.3" if first.version == 4 else "fd01::3")
    outcome = bed.send(tier, arriving.but(destination=passing))
    assert (outcome.reason, outcome.action) == (Reason.NO_FLOW, Action.DROP)


@pytest.mark.parametrize("first", [FIRSTS["tcp4"], FIRSTS["tcp6"]], ids=["v4", "v6"])
def test_what_quotes_too_little_is_malformed(bed: Bed, tier: Tier, first: Packet) -> None:
    scene = Scene.of(bed, tier, first)
    header = 20 if first.version == 4 else 40
    for octets in (0, 1, header - 1, header, header + 7):
        arriving, _ = scene.from_outside(ROUTERS[first.version], octets=octets)
        outcome = bed.send(tier, arriving)
        assert (outcome.reason, outcome.action) == (Reason.MALFORMED, Action.DROP), octets
        # Ethernet padding quotes nothing.
        assert bed.send(tier, arriving.but(trailer=bytes(100))).reason is Reason.MALFORMED
    arriving, _ = scene.from_outside(ROUTERS[first.version])
    payload = bytearray(arriving.transport.payload)
    for start in (0x55, 0x05, 0x44 if first.version == 4 else 0x45):
        payload[0] = start
        assert bed.send(tier, arriving.but(transport__payload=bytes(payload))).reason is Reason.MALFORMED


@EVERY_FIRST
def test_redirects_and_unknown_errors_are_not_translated(bed: Bed, tier: Tier, first: Packet) -> None:
    scene = Scene.of(bed, tier, first)
    arriving, _ = scene.from_outside(ROUTERS[first.version])
    for number in (4, 5) if first.version == 4 else (0, 5, 100, 127):
        outcome = bed.send(tier, arriving.but(transport__type=number))
        assert outcome.reason is Reason.PASSED_TO_HOST


@EVERY_FIRST
def test_error_at_its_last_hop_or_too_large_is_dropped_without_an_answer(
    bed: Bed, tier: Tier, first: Packet
) -> None:
    scene = Scene.of(bed, tier, first)
    arriving, _ = scene.from_outside(ROUTERS[first.version])
    outcome = bed.send(tier, arriving.but(ttl=1))
    assert (outcome.reason, outcome.action) == (Reason.TTL_EXPIRED, Action.DROP)
    large = arriving.but(transport__payload=arriving.transport.payload + bytes(1000))
    outcome = bed.send(tier, large)
    assert (outcome.reason, outcome.action) == (Reason.TOO_BIG, Action.DROP)


def test_ipv6_address_in_disguise_finds_no_ipv4_flow(bed: Bed, tier: Tier) -> None:
    scene = Scene.of(bed, tier, FIRSTS["udp4"])
    sent = scene.talk.asked()
    assert isinstance(sent.transport, Udp)
    disguised = [b"\0" * 10 + b"\xff\xff" + each.packed for each in (sent.source, sent.destination)]
    quoted = pack("!IHBB", 6 << 28, 16, 17, 60) + b"".join(disguised) + sent.payload()
    arriving = packet("2001:db8:77::1", "fd02::1", Icmp(1, 0, 0, quoted), link=FROM_SERVER)
    assert bed.send(tier, arriving).reason is Reason.PASSED_TO_HOST


@EVERY_FIRST
def test_error_through_a_way_that_must_be_looked_up_again(bed: Bed, tier: Tier, first: Packet) -> None:
    scene = Scene.of(bed, tier, first)
    bed.settings.routes_changed()
    arriving, wanted = scene.from_outside(ROUTERS[first.version])
    outcome = bed.send(tier, arriving)
    assert outcome.reason is Reason.FORWARDED
    check_frame(outcome.frame, wanted.but(link=outcome_link(outcome)))
    flow = bed.flow(scene.talk.answers)
    assert flow is not None
    assert flow.route_epoch == layouts.SETTINGS.struct.unpack(bed.maps["settings"].get(bytes(4)) or b"")[2]
