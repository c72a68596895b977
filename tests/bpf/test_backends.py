"""Which backend a new flow gets: the plan's table, to the slot, and one policy or the other, never both."""

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.model.address import IPAddress
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Plan, Pool
from tests.bpf.bed import Bed, Tier
from tests.bpf.packets import Packet, Tcp, Udp
from tests.bpf.talk import Talk, from_client
from tests.policy.build import mapping, plan, service

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

BACKENDS = [f"10.2.0.{last}" for last in range(2, 6)], [f"fd02::{last}" for last in range(2, 6)]
FIRSTS = {
    "tcp4": from_client(Tcp(0, 80)),
    "udp4": from_client(Udp(0, 80)),
    "tcp6": from_client(Tcp(0, 80), "fd01::2", "fd01::1"),
    "udp6": from_client(Udp(0, 80), "fd01::2", "fd01::1"),
}
EACH = pytest.mark.parametrize("first", FIRSTS.values(), ids=FIRSTS)


def balanced(weights: dict[str, int] | None = None, *, without: str = "") -> Plan:
    """Four servers of equal weight, or `{"s2": 3}`: server 2 three times as often as the others."""
    servers = [
        service(f"s{last}", f"10.2.0.{last}", f"fd02::{last}", weight=(weights or {}).get(f"s{last}", 1))
        for last in range(2, 6)
        if f"s{last}" != without
    ]
    names = ",".join(server.name for server in servers)
    return plan(*servers, mapping("web", "all", names, "*:80", protocols="tcp,udp"))


def many(first: Packet, count: int = 600) -> Iterator[Packet]:
    """Flows of several clients and ports."""
    for number in range(count):
        source = first.source + number % 7
        yield first.but(source=source, transport__source=2000 + number)


def chosen(bed: Bed, tier: Tier, firsts: Iterator[Packet]) -> list[IPAddress]:
    """The backends of new flows, which are then forgotten."""
    found = []
    for first in firsts:
        assert bed.send(tier, first).reason is Reason.FORWARDED
        flow = bed.flow(first)
        assert flow is not None
        found.append(layouts.read_address(flow.destination))
    bed.maps["opening"].delete_many(list(bed.maps["opening"].keys()))
    return found


def mix(value: int, word: int) -> int:
    """`hash_mix` in hash.h."""
    value = (value ^ word) * 0x85EBCA6B & 0xFFFFFFFF
    value = (value ^ value >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ value >> 16


def slot(first: Packet, pool: Pool) -> IPAddress:
    """Where the table sends a flow: `hash_flow` in hash.h, whose words are network order read by this CPU."""
    assert isinstance(first.transport, Tcp | Udp)
    source, destination = layouts.pack_address(first.source), layouts.pack_address(first.destination)
    value = 0x9E3779B9
    for start in range(0, 16, 4):
        value = mix(value, int.from_bytes(source[start : start + 4], "little"))
    ports = [int.from_bytes(port.to_bytes(2), "little") for port in (first.transport.source, 80)]
    value = mix(value, ports[0] << 16 | ports[1])
    value = mix(value, int.from_bytes(destination[12:], "little") ^ first.protocol)
    return pool.backends[pool.table[value % len(pool.table)]].address


@pytest.fixture(autouse=True)
def ports(bed: Bed) -> None:
    bed.settings.prepare(NatPorts(20000, 20000))


@EACH
@pytest.mark.parametrize("weights", [{}, {"s2": 3, "s3": 2}, {"s5": 200}], ids=["equal", "3:2:1:1", "200"])
def test_choice_is_the_slot_of_the_plans_table(
    bed: Bed, tier: Tier, first: Packet, weights: dict[str, int]
) -> None:
    wanted = balanced(weights)
    pools = [
        listener.rules[0].pool for listener in wanted.listeners if listener.address.version == first.version
    ]
    pool = pools[0]
    assert pool is not None
    bed.apply(wanted)
    flows = list(many(first, 150))
    assert chosen(bed, tier, iter(flows)) == [slot(flow, pool) for flow in flows]


@EACH
def test_shares_follow_the_weights(bed: Bed, first: Packet) -> None:
    bed.apply(balanced({"s2": 3, "s3": 2}))
    shares = Counter(chosen(bed, "tc", many(first, 1400)))
    backends = map(ip_address, BACKENDS[0] if first.version == 4 else BACKENDS[1])
    for backend, expected in zip(backends, (600, 400, 200, 200), strict=True):
        # Four standard deviations of a fair draw; and the draw is always the same.
        assert abs(shares[backend] - expected) < 4 * (expected * (1 - expected / 1400)) ** 0.5


@EACH
def test_most_flows_keep_their_backend_when_another_one_goes(bed: Bed, first: Packet) -> None:
    bed.apply(balanced())
    before = chosen(bed, "tc", many(first))
    bed.apply(balanced(without="s4"))
    after = chosen(bed, "tc", many(first))
    gone = ip_address("10.2.0.4" if first.version == 4 else "fd02::4")
    stayed = [old == new for old, new in zip(before, after, strict=True) if old != gone]
    assert gone not in after
    assert sum(stayed) / len(stayed) > 0.9


@EACH
def test_running_flow_keeps_its_backend_whatever_the_policy_becomes(
    bed: Bed, tier: Tier, first: Packet
) -> None:
    bed.apply(balanced())
    talk = Talk.established(bed, tier, first.but(transport__source=999))
    for successor in (balanced(without="s2"), balanced(without="s3"), Plan()):
        bed.apply(successor)
        flags = {"transport__flags": "A"} if isinstance(first.transport, Tcp) else {}
        outcome = talk.ask(**flags)
        assert (outcome.reason, outcome.frame) == (Reason.FORWARDED, talk.asked(**flags).build())


def test_switch_of_policy_is_all_or_nothing(bed: Bed, tier: Tier) -> None:
    """Two policies that share no table entry, in turns: each packet sees the one that was applied last."""
    red = plan(service("red", "10.2.0.2", port=1111), mapping("m", "all", "red", "10.1.0.1:80"))
    blue = plan(
        service("guest", "10.1.0.0/24"),
        *(service(f"b{last}", f"10.2.0.{last}", port=2222) for last in (3, 4, 5)),
        mapping("deny", "guest", "b3", "*:81", action="deny"),
        mapping("m", "guest", "b3,b4,b5", "*:80"),
    )
    first = from_client(Tcp(7, 80))
    for turn in range(12):
        bed.apply((red, blue)[turn % 2], revision=turn)
        (backend,) = chosen(bed, tier, iter([first]))
        assert (backend == ip_address("10.2.0.2")) is (turn % 2 == 0)
        other = bed.send(tier, first.but(transport__destination=81))
        assert other.reason is (Reason.DENY_MAPPING if turn % 2 else Reason.PASSED_TO_HOST)


def test_flow_names_the_mapping_and_the_revision_that_opened_it(bed: Bed, tier: Tier) -> None:
    bed.apply(balanced(), revision=41)
    first = from_client(Tcp(7, 80))
    bed.send(tier, first)
    bed.apply(Plan(), revision=42)
    flow = bed.flow(first)
    assert flow is not None
    assert (flow.mapping, flow.revision) == (bed.mappings["web"], 41)
