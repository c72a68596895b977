"""Strategies in the programs: the choice of the sockets tier, and the spread of a thousand connections."""

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.active import ActiveFlows
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.proxy.balance import Balancer
from marchproxy.model.address import IPAddress
from marchproxy.model.entities import Balance
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Query
from marchproxy.policy.plan import Backend, Plan, Rule
from tests.bpf.bed import Bed, Tier
from tests.bpf.packets import Packet, Tcp, Udp
from tests.bpf.talk import Talk, from_client
from tests.policy.build import mapping, plan, service

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

EACH = pytest.mark.parametrize("balance", Balance)
VIPS = {4: ip_address("10.1.0.1"), 6: ip_address("fd01::1")}


@pytest.fixture(autouse=True)
def ports(bed: Bed) -> None:
    bed.settings.prepare(NatPorts(20000, 20000))


def spread(balance: Balance, *weights: int, drain: tuple[str, ...] = ()) -> Plan:
    """Servers 2 and up of these weights behind one listener."""
    servers = [
        service(
            f"s{last}", f"10.2.0.{last}", f"fd02::{last}", weight=weight,
            drain=[address for address in drain if address.endswith(str(last))],
        )
        for last, weight in enumerate(weights, start=2)
    ]  # fmt: skip
    names = ",".join(server.name for server in servers)
    return plan(*servers, mapping("web", "all", names, "*:80", protocols="tcp,udp", balance=balance))


def apply(bed: Bed, wanted: Plan) -> ActiveFlows:
    """As the tier does."""
    bed.apply(wanted)
    active = ActiveFlows(bed.maps)
    active.want(wanted)
    return active


def rule_of(made: Plan, version: int) -> Rule:
    """The rule of the listener of a family."""
    return next(listener.rules[0] for listener in made.listeners if listener.address.version == version)


def firsts(count: int, version: int = 4, *, clients: int = 200) -> Iterator[Packet]:
    """First packets of connections of many clients."""
    network = ip_address("10.1.0.2" if version == 4 else "fd01::2")
    for number in range(count):
        source = str(network + number * 7 % clients)
        yield from_client(Tcp(2000 + number, 80), source, str(VIPS[version]))


def backend_of(bed: Bed, tier: Tier, first: Packet) -> IPAddress:
    """Where the flow of a first packet goes."""
    assert bed.send(tier, first).reason is Reason.FORWARDED
    flow = bed.flow(first)
    assert flow is not None
    return layouts.read_address(flow.destination)


def reference(balancer: Balancer, rule: Rule, first: Packet) -> Backend:
    """The sockets tier's choice."""
    assert isinstance(first.transport, Tcp | Udp)
    assert rule.pool is not None
    query = Query(first.source, first.destination, 80, Transport.TCP)
    return next(balancer.candidates(rule, rule.pool, query, first.transport.source))


@EACH
@pytest.mark.parametrize("version", [4, 6])
def test_both_tiers_choose_alike(bed: Bed, tier: Tier, balance: Balance, version: int) -> None:
    """Also where the choice depends on what was chosen before: counts of flows, and turns."""
    wanted = spread(balance, 3, 1, 2, drain=("10.2.0.4", "fd02::4"))
    apply(bed, wanted)
    balancer, rule = Balancer(), rule_of(wanted, version)
    for first in firsts(120, version):
        expected = reference(balancer, rule, first)
        talk = Talk.established(bed, tier, first)
        balancer.count(expected, 1)
        flow = bed.flow(talk.asks)
        assert flow is not None
        assert layouts.read_address(flow.destination) == expected.address
        assert expected.address not in (ip_address("10.2.0.4"), ip_address("fd02::4"))


@EACH
@pytest.mark.parametrize("weights", [(1, 1, 1), (3, 2, 1)], ids=["equal", "3:2:1"])
def test_a_thousand_connections_spread_by_weight(
    bed: Bed, tier: Tier, balance: Balance, weights: tuple[int, ...]
) -> None:
    apply(bed, spread(balance, *weights))
    shares: Counter[str] = Counter()
    for first in firsts(1000, clients=997 if balance is Balance.SOURCE else 200):
        Talk.established(bed, tier, first)
        flow = bed.flow(first)
        assert flow is not None
        shares[str(layouts.read_address(flow.destination))] += 1
    within = {Balance.ROUND_ROBIN: 0.01, Balance.LEAST_CONNECTIONS: 0.03}.get(balance, 0.12)
    for last, weight in enumerate(weights, start=2):
        assert shares[f"10.2.0.{last}"] == pytest.approx(1000 * weight / sum(weights), rel=within)


def test_turns_of_each_family_are_counted_by_themselves(bed: Bed, tier: Tier) -> None:
    apply(bed, spread(Balance.ROUND_ROBIN, 1, 1))
    pairs = zip(firsts(6), firsts(6, 6), strict=True)
    found = [(str(backend_of(bed, tier, four)), str(backend_of(bed, tier, six))) for four, six in pairs]
    assert found == [("10.2.0.2", "fd02::2"), ("10.2.0.3", "fd02::3")] * 3


def test_a_repeated_first_packet_takes_no_turn(bed: Bed, tier: Tier) -> None:
    apply(bed, spread(Balance.ROUND_ROBIN, 1, 1))
    one, two = firsts(2)
    assert [str(backend_of(bed, tier, each)) for each in (one, one, one, two)] == ["10.2.0.2"] * 3 + [
        "10.2.0.3"
    ]


def active(bed: Bed) -> dict[str, int]:
    """Counted flows by backend."""
    return {
        str(layouts.read_address(layouts.BACKEND_KEY.struct.unpack(key)[0])): layouts.I64.unpack(value)[0]
        for key, value in bed.maps["active"].items()
        if key.startswith(bytes(10) + b"\xff\xff")
    }


@pytest.mark.parametrize("ending", ["reset by the client", "reset by the backend", "both closed"])
def test_flows_are_counted_from_establishment_to_their_end(bed: Bed, tier: Tier, ending: str) -> None:
    apply(bed, spread(Balance.LEAST_CONNECTIONS, 1))
    assert active(bed) == {"10.2.0.2": 0}
    (first,) = firsts(1)
    bed.send(tier, first)
    assert active(bed) == {"10.2.0.2": 0}, "a first packet proves nothing"
    bed.maps["opening"].delete_many(list(bed.maps["opening"].keys()))
    talk = Talk.established(bed, tier, first)
    assert active(bed) == {"10.2.0.2": 1}
    if ending == "reset by the client":
        talk.ask(transport__flags="R", transport__sequence=1001)
    elif ending == "reset by the backend":
        talk.answer(transport__flags="R", transport__sequence=5001)
    else:
        talk.ask(transport__flags="FA", transport__sequence=1001, transport__acknowledgement=5001)
        assert active(bed) == {"10.2.0.2": 1}
        talk.answer(transport__flags="FA", transport__sequence=5001, transport__acknowledgement=1002)
        talk.ask(transport__flags="A", transport__sequence=1002, transport__acknowledgement=5002)
    assert active(bed) == {"10.2.0.2": 0}


def test_only_what_is_compared_is_counted_and_what_runs_already_from_the_start(bed: Bed, tier: Tier) -> None:
    apply(bed, spread(Balance.MAGLEV, 1))
    for first in firsts(3):
        Talk.established(bed, tier, first)
    assert active(bed) == {}
    kept = apply(bed, spread(Balance.LEAST_CONNECTIONS, 1, 1))
    assert active(bed) == {"10.2.0.2": 3, "10.2.0.3": 0}
    kept.want(spread(Balance.ROUND_ROBIN, 1, 1))
    assert active(bed) == {}


def test_a_backend_that_had_fewer_flows_catches_up(bed: Bed, tier: Tier) -> None:
    apply(bed, spread(Balance.MAGLEV, 1))
    for first in firsts(40):
        Talk.established(bed, tier, first)
    apply(bed, spread(Balance.LEAST_CONNECTIONS, 1, 1))
    for first in firsts(80):
        Talk.established(bed, tier, first.but(source=first.source + 1))
    counts = active(bed)
    assert sum(counts.values()) == 120
    assert abs(counts["10.2.0.2"] - counts["10.2.0.3"]) <= 6
