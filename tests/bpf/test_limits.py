"""Rate limits: who is charged for what, in both tiers. (How exactly: test_limit_rates.py.)"""

import random
import struct
from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.limits import buckets_of
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.model.reason import Reason
from marchproxy.policy.limits import Bucket, Held, HeldIndex
from marchproxy.policy.plan import RateLimit
from tests.bpf.bed import FROM_SERVER, INSIDE, OUTSIDE, Action, Bed, Tier
from tests.bpf.packets import Packet, Tcp, Udp
from tests.bpf.policies import WEB
from tests.bpf.talk import Talk, from_client
from tests.limits import limited, packets, rate
from tests.policy.build import mapping, plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

SYN = from_client(Tcp(40000, 80))
DATAGRAM = from_client(Udp(40000, 80))
SLOW = 1
"""Packets a second: a bucket that is empty stays so for the length of a test."""


@pytest.fixture(autouse=True)
def ports(bed: Bed) -> None:
    bed.settings.prepare(NatPorts())


def datagram(source: str) -> Packet:
    """To the listener."""
    return from_client(Udp(40000, 80), source, "fd01::1" if ":" in source else "10.1.0.1")


def passed(bed: Bed, tier: Tier, packet: Packet, tries: int) -> int:
    """How many of equal packets are let through; the others must be dropped without an answer."""
    outcomes = [bed.send(tier, packet) for _ in range(tries)]
    dropped = [outcome for outcome in outcomes if outcome.reason is Reason.RATE_LIMITED]
    assert all(outcome.action is Action.DROP for outcome in dropped)
    return tries - len(dropped)


def test_a_burst_passes_and_no_packet_more(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(packets("source", SLOW, 5)))
    assert passed(bed, tier, DATAGRAM, 8) == 5


def test_without_limits_none_is_asked(bed: Bed, tier: Tier) -> None:
    bed.apply(limited())
    assert passed(bed, tier, DATAGRAM, 8) == 8
    assert bed.count("limited") == 0


def test_every_source_has_its_own(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(packets("source", SLOW, 3)))
    for source in ("10.1.0.2", "10.1.0.3", "fd01::2"):
        assert passed(bed, tier, datagram(source), 5) == 3


def test_the_sources_of_a_service_share(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(packets("service", SLOW, 4, sources={"pair": "10.1.0.2/31", "lone": "10.1.0.4"})))
    assert passed(bed, tier, DATAGRAM, 3) == 3
    assert passed(bed, tier, datagram("10.1.0.3"), 3) == 1
    assert passed(bed, tier, datagram("10.1.0.4"), 6) == 4, "a bucket for each service"
    assert passed(bed, tier, datagram("10.1.0.5"), 6) == 6, "not of these services"


def test_all_share_the_total(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(packets("total", SLOW, 4)))
    assert passed(bed, tier, DATAGRAM, 3) == 3
    assert passed(bed, tier, datagram("fd01::2"), 3) == 1


def test_exempt_addresses_are_not_limited_and_remembered(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(packets("source", SLOW, 2, exempt="10.1.0.3,fd01::/64")))
    assert passed(bed, tier, DATAGRAM, 4) == 2
    assert passed(bed, tier, datagram("10.1.0.3"), 9) == 9
    assert passed(bed, tier, datagram("fd01::2"), 9) == 9
    assert bed.count("limited") == 3


def test_of_limits_per_source_the_narrowest_holds(bed: Bed, tier: Tier) -> None:
    narrow = rate("narrow", "source", {"one": "10.1.0.3"}, packets_per_second=SLOW, burst=6)
    bed.apply(limited(packets("source", SLOW, 2), narrow))
    assert passed(bed, tier, DATAGRAM, 9) == 2
    assert passed(bed, tier, datagram("10.1.0.3"), 9) == 6


def test_limits_per_source_of_different_rates_hold_together(bed: Bed, tier: Tier) -> None:
    opens = rate("opens", "source", flows_per_second=SLOW, burst=2)
    bed.apply(limited(packets("source", SLOW, 5), opens))
    assert passed(bed, tier, DATAGRAM, 1) == 1
    assert passed(bed, tier, DATAGRAM.but(transport__source=40001), 1) == 1
    assert passed(bed, tier, DATAGRAM.but(transport__source=40002), 1) == 0, "a third flow"
    assert passed(bed, tier, DATAGRAM, 9) == 2, "two more packets: the refused one was paid for"
    assert {name: (each[0], each[2]) for name, each in counters(bed).items()} == {
        "opens": (4, 1),
        "source-packets": (5, 7),
    }


def test_every_limit_must_be_kept_and_a_dropped_packet_costs_nothing(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(packets("source", SLOW, 3), packets("total", SLOW, 5)))
    assert passed(bed, tier, DATAGRAM, 9) == 3
    # What was dropped for want of the source's own has not been taken from the total.
    assert passed(bed, tier, datagram("10.1.0.3"), 9) == 2


def test_both_directions_are_the_clients(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(packets("source", SLOW, 10)))
    talk = Talk.established(bed, tier, SYN)  # three packets
    for _ in range(7):
        assert talk.answer(transport__flags="PA").reason is Reason.FORWARDED
    assert talk.answer(transport__flags="PA").reason is Reason.RATE_LIMITED
    assert talk.ask(transport__flags="A").reason is Reason.RATE_LIMITED
    other = Talk.established(bed, tier, from_client(Tcp(40000, 80), "10.1.0.3"))
    assert other.ask(transport__flags="A").reason is Reason.FORWARDED


def test_a_backend_is_not_charged_for_what_it_answers(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(packets("source", SLOW, 3, exempt="10.1.0.0/24")))
    talk = Talk.established(bed, tier, SYN)
    assert all(talk.answer(transport__flags="PA").reason is Reason.FORWARDED for _ in range(9))


def test_what_policy_denies_is_limited_first(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(packets("source", SLOW, 2)))
    stray = from_client(Udp(40000, 81), destination="10.2.0.2")
    reasons = [bed.send(tier, stray).reason for _ in range(4)]
    assert reasons == [Reason.NO_MAPPING] * 2 + [Reason.RATE_LIMITED] * 2


def test_the_host_and_its_management_are_not_limited(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(packets("source", SLOW, 2)))
    for packet in (from_client(Tcp(40000, 22)), from_client(Udp(40000, 9999))):
        assert all(bed.send(tier, packet).reason is Reason.PASSED_TO_HOST for _ in range(5))


def test_bytes_are_those_on_the_wire(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(rate("octets", "source", bytes_per_second=1000, burst=4500)))
    # A debt is allowed: the packet that begins within the burst passes whole.
    large = DATAGRAM.but(transport__payload=bytes(972))
    assert passed(bed, tier, large, 9) == 5


def test_an_offloaded_buffer_counts_as_its_segments(bed: Bed) -> None:
    bed.apply(limited(packets("source", SLOW, 20)))
    talk = Talk.established(bed, "tc", SYN)  # three packets
    frame = talk.asks.but(transport__flags="A", transport__payload=bytes(1000)).build()
    reasons = [bed.send("tc", frame, segments=(10, 100)).reason for _ in range(3)]
    assert reasons == [Reason.FORWARDED, Reason.FORWARDED, Reason.RATE_LIMITED], "the debt is paid first"
    counted = counters(bed)["source-packets"]
    assert (counted[0], counted[2]) == (23, 10)


def test_new_flows_are_limited_and_old_ones_go_on(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(rate("opens", "source", flows_per_second=SLOW, burst=3)))
    talk = Talk.established(bed, tier, SYN)
    opened = [bed.send(tier, SYN.but(transport__source=50000 + n)).reason for n in range(4)]
    assert opened == [Reason.FORWARDED] * 2 + [Reason.RATE_LIMITED] * 2
    assert all(talk.ask(transport__flags="A").reason is Reason.FORWARDED for _ in range(9))
    assert bed.count("opening") == 4, "two flows of two directions: the refused ones take no place"


def test_the_first_packet_of_a_flow_is_charged_once(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(packets("source", SLOW, 2)))
    Talk.open(bed, tier, DATAGRAM)
    assert passed(bed, tier, DATAGRAM, 3) == 1
    counted = counters(bed)["source-packets"]
    assert (counted[0], counted[2]) == (2, 2)


def test_new_limits_hold_for_known_clients_at_once(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(packets("source", SLOW, 2, exempt="10.1.0.2")))
    assert passed(bed, tier, DATAGRAM, 5) == 5
    bed.apply(limited(packets("source", SLOW, 2)))
    assert passed(bed, tier, DATAGRAM, 5) == 2
    bed.apply(limited())
    assert passed(bed, tier, DATAGRAM, 5) == 5


def test_a_rate_that_changes_keeps_the_bucket(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(packets("total", SLOW, 3)))
    assert passed(bed, tier, DATAGRAM, 5) == 3
    bed.apply(limited(packets("total", 2 * SLOW, 3)))
    assert passed(bed, tier, DATAGRAM, 5) < 3


def test_counters_say_what_each_limit_did(bed: Bed, tier: Tier) -> None:
    bed.apply(limited(packets("source", SLOW, 4), rate("opens", "total", flows_per_second=SLOW, burst=1)))
    assert passed(bed, tier, DATAGRAM, 6) == 4
    assert passed(bed, tier, datagram("10.1.0.3"), 1) == 0
    size = len(DATAGRAM.build()) - 14
    assert counters(bed) == {
        "source-packets": (5, 5 * size, 2, 2 * size),
        "opens": (4, 4 * size, 1, size),
    }


def test_routed_traffic_is_limited_in_both_directions(bed: Bed, tier: Tier) -> None:
    routed = plan(WEB, mapping("through", "all", "web", protocols="tcp,udp", ports="80"))
    bed.apply(replace(routed, limits=(packets("source", SLOW, 6),)))
    asks = from_client(Udp(40000, 80), destination="10.2.0.2")
    answers = asks.but(link=FROM_SERVER, source=asks.destination, destination=asks.source)
    answers = answers.but(transport=Udp(80, 40000))
    assert passed(bed, tier, asks, 2) == 2
    assert passed(bed, tier, answers, 2) == 2
    assert passed(bed, tier, asks, 4) == 2
    assert passed(bed, tier, answers, 1) == 0
    assert counters(bed)["source-packets"][0] == 6
    assert passed(bed, tier, from_client(Udp(1, 80), "10.1.0.3", "10.2.0.2"), 9) == 6


def test_others_cannot_use_up_a_clients_limit(bed: Bed, tier: Tier) -> None:
    bed.know_interface(INSIDE, native=True, role=layouts.ROLE_INSIDE)
    bed.know_interface(OUTSIDE, native=True, role=layouts.ROLE_OUTSIDE)
    bed.apply(limited(packets("source", SLOW, 3)))
    for transport in (Udp(40000, 80), Tcp(40000, 80), Tcp(40000, 80, "A")):
        forged = from_client(transport, destination="10.2.0.1", link=FROM_SERVER)
        assert passed(bed, tier, forged, 5) == 5
    assert bed.count("limited") == 0
    assert passed(bed, tier, DATAGRAM, 5) == 3


def test_a_flood_from_invented_addresses_opens_what_the_total_allows(bed: Bed, tier: Tier) -> None:
    bed.apply(limited())
    talk = Talk.established(bed, tier, SYN)
    bed.apply(limited(rate("opens", "total", flows_per_second=SLOW, burst=10)))
    bed.counters.difference()
    for number in range(500):
        frame = from_client(Tcp(40000, 80), f"10.77.{number // 250}.{number % 250 + 1}")
        bed.runners[tier].run(frame.build(), bed.ifindex[INSIDE])
    seen = bed.counters.difference()
    assert seen[Reason.RATE_LIMITED][0] >= 480
    assert bed.count("opening") <= 40
    assert talk.ask(transport__flags="A").reason is Reason.FORWARDED
    assert talk.answer(transport__flags="A").reason is Reason.FORWARDED


PREFIXES = ("10.1.0.0/16", "10.1.0.0/24", "10.1.0.2", "10.1.0.2/31", "10.1.3.0/24", "0.0.0.0/0")


def test_programs_and_policy_agree_on_whom_limits_hold_for(bed: Bed) -> None:
    chance = random.Random(3)
    addresses = [f"10.1.{chance.randrange(5)}.{chance.randrange(2, 6)}" for _ in range(25)]
    for _ in range(40):
        limits = tuple(_random_limit(chance, number) for number in range(chance.randrange(1, 6)))
        bed.apply(limited(*limits))
        index, names = (
            HeldIndex(limits),
            {slot: bucket for bucket, slot in bed.limits.settle(_buckets(limits)).items()},
        )
        for address in addresses:
            bed.send("tc", datagram(address))
            raw = bed.maps["limited"].get(layouts.pack_address(ip_address(address)))
            assert raw is not None
            assert _found(bed, raw, names) == index.find(ip_address(address)), (limits, address)


def _random_limit(chance: random.Random, number: int) -> RateLimit:
    per = chance.choice(("source", "service", "total"))
    sources = {
        name: ",".join(chance.sample(PREFIXES, 2)) for name in "st"[: chance.randrange(per == "service", 3)]
    }
    exempt = chance.choice((*PREFIXES, "", "", ""))
    kinds = chance.sample(("packets", "bytes", "flows"), chance.randrange(1, 3))
    return rate(f"l{number}", per, sources, exempt, **{f"{kind}_per_second": 10**9 for kind in kinds})


def _buckets(limits: tuple[RateLimit, ...]) -> list[Bucket]:
    return [bucket for each in limits for bucket in buckets_of(each.limit)]


def _found(bed: Bed, raw: bytes, names: dict[int, Bucket]) -> Held:
    number = layouts.LIMITED.struct.unpack(raw)[0] & 0xFFFFFFFF
    key = layouts.U32.pack(bed.settings.bank * layouts.LIMIT_SETS + number)
    own, count, shared = layouts.LIMIT_SET.struct.unpack(bed.maps["limit_sets"].get(key) or b"")
    slots = struct.unpack(f"={layouts.LIMIT_SHARED}H", shared)[:count]
    packets, octets, flows = (
        "" if slot == layouts.LIMIT_NONE else names[slot].limit for slot in struct.unpack("=HHH", own)
    )
    return Held((packets, octets, flows), tuple(names[slot] for slot in slots))


def counters(bed: Bed) -> dict[str, tuple[int, ...]]:
    """Passed packets and bytes, dropped packets and bytes, of each limit."""
    return {
        state.name: (state.passed.packets, state.passed.bytes, state.dropped.packets, state.dropped.bytes)
        for state in bed.limits.states()
    }
