"""Blocks in the programs: what is dropped, what is refused, what passes all the same, and by what."""

import random
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.model.address import IPAddress, Prefix
from marchproxy.model.reason import Reason
from marchproxy.policy.blocks import Blocks
from tests.bpf.bed import FROM_CLIENT, FROM_SERVER, INSIDE, Action, Bed, Tier
from tests.bpf.packets import Packet, Tcp, Udp, packet
from tests.bpf.policies import OPEN
from tests.bpf.talk import Talk, from_client
from tests.policy.blocking import Oracle, blocks, near, random_prefixes
from tests.policy.build import plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

TCP4, TCP6 = from_client(Tcp(40000, 80)), from_client(Tcp(40000, 80), "fd01::2", "fd01::1")
BOTH = pytest.mark.parametrize("first", [TCP4, TCP6], ids=["v4", "v6"])


def block(bed: Bed, *single: str, **lists: Iterable[str]) -> None:
    """The open policy with these blocks."""
    bed.apply(
        replace(plan(*OPEN), blocks=blocks(*single, **{name: tuple(each) for name, each in lists.items()}))
    )


@BOTH
def test_blocked_source_is_dropped_without_a_word(bed: Bed, tier: Tier, first: Packet) -> None:
    block(bed, str(first.source))
    outcome = bed.send(tier, first)
    assert (outcome.reason, outcome.action) == (Reason.BLOCKED_SOURCE, Action.DROP)
    assert outcome.frame == first.build()
    assert not outcome.handed_up


@BOTH
def test_client_of_a_blocked_destination_is_told(bed: Bed, tier: Tier, first: Packet) -> None:
    there = ip_address("10.2.0.9" if first.version == 4 else "fd02::9")
    block(bed, str(there))
    outcome = bed.send(tier, first.but(destination=there))
    assert (outcome.reason, outcome.action) == (Reason.BLOCKED_DESTINATION, Action.REDIRECT)


@BOTH
def test_flow_that_runs_stops_at_once_in_both_directions(bed: Bed, tier: Tier, first: Packet) -> None:
    block(bed)
    talk = Talk.established(bed, tier, first)
    block(bed, list=[str(first.source)])
    assert talk.ask(transport__flags="A").reason is Reason.BLOCKED_SOURCE
    block(bed, list=[str(talk.answers.source)])
    assert talk.answer(transport__flags="A").reason is Reason.BLOCKED_SOURCE
    block(bed)
    assert talk.ask(transport__flags="A").reason is Reason.FORWARDED


@BOTH
def test_what_was_found_clean_a_moment_ago_is_blocked_at_once(bed: Bed, tier: Tier, first: Packet) -> None:
    block(bed, "192.0.2.1")
    for _ in range(3):
        assert bed.send(tier, first.but(transport__flags="A")).reason is Reason.NO_FLOW
    block(bed, "192.0.2.1", list=[str(first.source)])
    assert bed.send(tier, first.but(transport__flags="A")).reason is Reason.BLOCKED_SOURCE


def test_pairs_that_share_a_place_are_told_apart(bed: Bed, tier: Tier) -> None:
    block(bed, "10.1.0.9")
    clean = [ip_address("10.1.1.0") + number for number in range(4 * layouts.CLEAN_PAIRS)]
    stray = TCP4.but(transport__flags="A")
    for source in clean:
        assert bed.send(tier, stray.but(source=source)).reason is Reason.NO_FLOW
        assert bed.send(tier, stray.but(source=ip_address("10.1.0.9"))).reason is Reason.BLOCKED_SOURCE


@BOTH
def test_management_port_of_the_appliance_stays_reachable(bed: Bed, tier: Tier, first: Packet) -> None:
    block(bed, "0.0.0.0/0", "::/0")
    assert bed.send(tier, first.but(transport__destination=22)).reason is Reason.PASSED_TO_HOST
    elsewhere = ip_address("10.2.0.2" if first.version == 4 else "fd02::2")
    beyond = first.but(transport__destination=22, destination=elsewhere)
    assert bed.send(tier, beyond).reason is Reason.BLOCKED_SOURCE
    assert bed.send(tier, first.but(transport__destination=23)).reason is Reason.BLOCKED_SOURCE


def test_other_protocols_fragments_and_the_hosts_own_ports_are_blocked_too(bed: Bed, tier: Tier) -> None:
    block(bed, "10.1.0.0/24")
    for first in (
        from_client(Udp(40000, 22)),
        from_client(Tcp(40000, 8080)),
        TCP4.but(offset=800),
    ):
        assert bed.send(tier, first).reason is Reason.BLOCKED_SOURCE


@BOTH
def test_backend_that_is_blocked_gets_no_flow(bed: Bed, tier: Tier, first: Packet) -> None:
    block(bed, "10.2.0.0/24", "fd02::/64")
    assert bed.send(tier, first).reason is Reason.BLOCKED_DESTINATION
    assert bed.flow(first) is None


def test_denials_are_counted_for_what_blocks(bed: Bed, tier: Tier) -> None:
    block(bed, "10.1.0.2", scanners=["10.1.0.0/28"], others=["fd01::/64"])
    before = {
        name: denied(bed, name) for name in ("block:10.1.0.2", "block-list:scanners", "block-list:others")
    }
    for source in ("10.1.0.2", "10.1.0.3", "10.1.0.3"):
        assert bed.send(tier, TCP4.but(source=ip_address(source))).reason is Reason.BLOCKED_SOURCE
    assert bed.send(tier, TCP6).reason is Reason.BLOCKED_SOURCE
    assert [denied(bed, name) - count for name, count in before.items()] == [1, 2, 1]


def test_what_is_not_blocked_any_more_passes(bed: Bed, tier: Tier) -> None:
    block(bed, "10.1.0.2", list=["10.1.0.3"])
    block(bed, list=["10.1.0.3"])
    assert bed.send(tier, TCP4).reason is Reason.FORWARDED
    assert bed.settings.block_layers == 1 << layouts.BLOCK_LISTS
    block(bed)
    assert bed.send(tier, TCP4.but(source=ip_address("10.1.0.3"))).reason is Reason.FORWARDED
    assert bed.settings.block_layers == 0


@pytest.mark.parametrize(("count", "addresses"), [(0, 100), (1, 1000), (40, 5000), (30_000, 100_000)])
def test_kernel_and_reference_agree_on_random_prefixes(bed: Bed, count: int, addresses: int) -> None:
    chance = random.Random(count)
    prefixes = [
        prefix
        for prefix in random_prefixes(chance, count, 4) + random_prefixes(chance, count, 6)
        if is_on_wires(prefix.network_address) and is_on_wires(prefix.broadcast_address)
    ]
    own, rest = prefixes[: count // 20], prefixes[count // 20 :]
    bed.apply(replace(plan(), blocks=blocks(*map(str, own), list=list(map(str, rest)))))
    oracle, held = Oracle(prefixes), bed_blocks(own, rest)
    wrong, seen = [], {True: 0, False: 0}
    for _ in range(addresses):
        address = near(chance, chance.choice(prefixes) if prefixes else chance.choice(EDGES))
        if not is_on_wires(address):
            continue
        wanted = oracle.blocks(address)
        seen[wanted] += 1
        if is_blocked(bed, address) is not wanted or bool(held.find(address)) is not wanted:
            wrong.append((str(address), wanted))
    assert wrong == []
    assert count < 40 or min(seen.values()) > 500


EDGES = [prefix for version in (4, 6) for prefix in random_prefixes(random.Random(1), 20, version)]


def bed_blocks(own: Iterable[Prefix], rest: Iterable[Prefix]) -> Blocks:
    """What the bed was given."""
    return blocks(*map(str, own), list=list(map(str, rest)))


def is_on_wires(address: IPAddress) -> bool:
    """Whether a packet may have it as its source as far as the parser is concerned."""
    number, top = int(address), address.packed[0]
    if address.version == 4:
        return 0 < top < 224 and top != 127
    return number >> 32 != 0xFFFF and number > 0xFFFFFFFF and top < 0xFE


def is_blocked(bed: Bed, source: IPAddress) -> bool:
    """Whether the program blocks a packet of that source to a port of the appliance."""
    own = "10.1.0.1" if source.version == 4 else "fd01::1"
    bed.runners["xdp"].run(packet(str(source), own, Udp(5, 5), link=FROM_CLIENT).build(), bed.ifindex[INSIDE])
    return Reason.BLOCKED_SOURCE in bed.counters.difference()


def denied(bed: Bed, owner: str) -> int:
    """Packets counted for what blocks, of all CPUs."""
    number = bed.mappings[owner]
    key = layouts.DENIED_KEY.struct.pack(number, Reason.BLOCKED_SOURCE, layouts.EVENT_DENIED)
    cells = bed.maps["denied"].get_percpu(key)
    return sum(layouts.COUNTER.struct.unpack(cell)[0] for cell in cells)


def test_answer_from_a_blocked_server_is_dropped(bed: Bed, tier: Tier) -> None:
    block(bed, "10.2.0.2")
    answer = packet("10.2.0.2", "10.2.0.1", Tcp(80, 40000, "SA"), link=FROM_SERVER)
    assert bed.send(tier, answer).reason is Reason.BLOCKED_SOURCE
