"""flowscan: what walks over the tables find is what the decoded flows say."""

import random
from ipaddress import ip_network
from itertools import product

import pytest

from marchproxy.dataplane import allowance
from marchproxy.dataplane.carried import Carried, Load
from marchproxy.dataplane.flowquery import FlowFilter, FlowOrder, FlowQuestion, SortKey, page_of
from marchproxy.dataplane.flowtotals import FlowTotals, Grouping
from marchproxy.dataplane.kernel import flowscan, layouts
from marchproxy.dataplane.kernel.flows import FlowTable, Timeouts
from marchproxy.dataplane.kernel.flowscan import FlowScan, Stopped
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.tunnels import HeldTunnel, Tunnel, TunnelTable
from marchproxy.dataplane.naming import ServiceNames
from marchproxy.dataplane.records import Flow
from marchproxy.model.reason import Reason
from tests.dataplane.kernel.conversations import SECOND, Conversation, now
from tests.dataplane.kernel.fakes import FakeCounts, FakeMap
from tests.dataplane.plans import backend, listener, plan, rule

FILTERS = (
    FlowFilter(),
    FlowFilter(source=ip_network("10.0.0.0/25")),
    FlowFilter(source=ip_network("2001:db8::/64")),
    FlowFilter(source=ip_network("::/0")),
    FlowFilter(source=ip_network("0.0.0.0/0")),
    FlowFilter(destination=ip_network("192.0.2.1/32")),
    FlowFilter(port=443),
    FlowFilter(protocol="icmp"),
    FlowFilter(protocol="udp", port=80),
    FlowFilter(protocol="47"),
    FlowFilter(mapping="m2"),
    FlowFilter(mapping="shop/m1"),
    FlowFilter(mapping="nothing"),
    FlowFilter(service="web"),
    FlowFilter(service="clients"),
    FlowFilter(service="laptops"),
    FlowFilter(reason=Reason.HANDED_OFF),
    FlowFilter(reason=Reason.NO_MAPPING),
    FlowFilter(text="10.2."),
    FlowFilter(text="web"),
    FlowFilter(text="handed"),
    FlowFilter(text="db8::3"),
    FlowFilter(text="example.com"),
    FlowFilter(text="m1", protocol="tcp", source=ip_network("10.0.0.0/8")),
)
ORDERS = (None, *(FlowOrder(key, descending=way) for key, way in product(SortKey, (False, True))))


class Kernel:
    """Both tables full of everything that there can be."""

    def __init__(self, flows: int = 300) -> None:
        chance = random.Random(11)
        names = MappingNames(FakeMap("mapping_names", value_size=128))
        for number in (1, 2, 3):
            names.number(f"shop/m{number}")
        self.maps = {name: FakeMap(name) for name in ("flows", "opening", "tunnels")}
        self.maps["beginnings"] = FakeCounts()
        served = plan(
            listener(80, rule(backend(8080, "10.2.0.2"), sources=("clients",), mapping="shop/m1")),
            sources={"clients": "10.0.0.0/24"},
        )
        self.services = ServiceNames(served)
        self.table = FlowTable(self.maps, names, Timeouts())
        self.scan = FlowScan(self.maps, names)
        tunnels = TunnelTable(self.maps["tunnels"])
        for number in range(1, flows):
            each = _random_conversation(chance, number)
            each.put(self.maps[chance.choice(("flows", "flows", "opening"))])
            if each.splice:
                tunnel = Tunnel("shop/laptops", "1", "www.example.com")
                tunnels.put(HeldTunnel(each.id, each.key, tunnel))
        # One that has lost its other half.
        alone = _random_conversation(chance, flows)
        self.maps["opening"].set(alone.key, alone.entry)

    def all(self) -> list[Flow]:
        return [self.services.complete_flow(flow) for flow in self.table.list(10**6)]


def _random_conversation(chance: random.Random, number: int) -> Conversation:
    v6 = chance.random() < 0.3
    return Conversation(
        client=f"2001:db8::{number % 9:x}" if v6 else f"10.0.{number % 2}.{number % 250}",
        listener="2001:db8:1::1" if v6 else chance.choice(("192.0.2.1", "192.0.2.9")),
        backend="fd02::2" if v6 else chance.choice(("10.2.0.2", "10.2.0.3")),
        port=40_000 + number,
        nat_port=4_096 + number,
        listen_port=chance.choice((80, 443)),
        protocol=chance.choice((layouts.TCP, layouts.UDP, layouts.ICMPV6 if v6 else layouts.ICMP)),
        state=chance.choice((1, 2, 3, 3, 3, 4)),
        id=number,
        age=chance.random() * 100,
        reply_age=chance.random() * 100,
        mapping=chance.choice((0, 1, 2, 3)),
        splice=chance.choice((0, 0, number)),
        sent=chance.randrange(10**6),
        received=chance.randrange(10**6),
    )


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture(scope="module")
def everything(kernel: Kernel) -> list[Flow]:
    return kernel.all()


def _value(flow: Flow, order: FlowOrder | None) -> object:
    """What it is sorted by, without what two readings of the clock differ in."""
    decision = flow.decision
    match order.key if order else None:
        case SortKey.MAPPING:
            return decision.mapping
        case SortKey.SOURCE:
            return decision.source, decision.source_port
        case SortKey.DESTINATION:
            return decision.destination, decision.destination_port
        case _:
            return decision.id


@pytest.mark.parametrize("wanted", FILTERS, ids=repr)
def test_pages_are_those_of_the_decoded_flows(
    kernel: Kernel, everything: list[Flow], wanted: FlowFilter
) -> None:
    for order in ORDERS:
        for first, count in ((0, 10), (5, 20), (0, 1000), (295, 10)):
            question = FlowQuestion(wanted, order, first, count)
            expected = page_of(everything, question)
            found = kernel.scan.page(question, kernel.services)
            assert found.total == expected.total
            if order:
                assert [_value(flow, order) for flow in found.flows] == [
                    _value(flow, order) for flow in expected.flows
                ]
            else:
                assert len(found.flows) == len(expected.flows)


def test_filters_of_these_tests_tell_flows_apart(everything: list[Flow]) -> None:
    sizes = [page_of(everything, FlowQuestion(wanted)).total for wanted in FILTERS]
    assert sizes.count(0) == 3, sizes
    assert len(set(sizes)) > len(sizes) / 2


@pytest.mark.parametrize("by", Grouping)
def test_totals_are_those_of_the_decoded_flows(kernel: Kernel, everything: list[Flow], by: Grouping) -> None:
    assert kernel.scan.totals(by, kernel.services) == FlowTotals.of(everything, by)


def test_what_established_flows_have_carried_is_that_of_the_decoded_ones(kernel: Kernel) -> None:
    established = {key[:37] for key in kernel.maps["flows"].entries}
    expected = Carried()
    for flow in kernel.all():
        decision = flow.decision
        key = layouts.FLOW_KEY.struct.pack(
            *(layouts.pack_address(decision.source), layouts.pack_address(decision.destination)),
            *(layouts.pack_port(decision.source_port), layouts.pack_port(decision.destination_port)),
            {"tcp": 6, "udp": 17}.get(decision.protocol, 58 if decision.source.version == 6 else 1),
        )
        if key[:37] in established:
            load = Load(1, flow.sent.packets, flow.sent.bytes, flow.received.packets, flow.received.bytes)
            expected.take(decision.mapping, decision.source_service, decision.destination_service, load)
    found = kernel.scan.carried(kernel.services)
    assert 100 < sum(load.flows for load in found.mappings.values()) < len(kernel.all())
    assert (found.mappings, found.services) == (expected.mappings, expected.services)
    assert found.cost > 0
    old = kernel.scan.carried(kernel.services, now() - 50 * SECOND)
    for mapping, load in old.mappings.items():
        assert 0 < load.flows < found.mappings[mapping].flows
    assert kernel.scan.carried(kernel.services, 1).mappings == {}


def test_several_who_ask_the_same_share_one_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(20)
    table = kernel.maps["flows"]
    question = FlowQuestion(order=FlowOrder(SortKey.BYTES, descending=True), count=5)
    monkeypatch.setattr(flowscan, "CHEAP", 0.0)
    monkeypatch.setattr(allowance, "WALK", 1e-9)
    kernel.scan.page(question, kernel.services)
    read = table.read
    assert read
    page = kernel.scan.page(question, kernel.services)
    kernel.scan.page(FlowQuestion(order=question.order, first=5, count=5), kernel.services)
    assert table.read == read
    # Other names may match otherwise.
    kernel.scan.page(question, ServiceNames(plan()))
    assert table.read == 2 * read
    # What costs little is asked anew: a script that looks, acts and looks again sees what it did.
    monkeypatch.setattr(flowscan, "CHEAP", 3600.0)
    kernel.scan.page(question, kernel.services)
    kernel.scan.page(question, kernel.services)
    assert table.read == 4 * read
    assert len(page.flows) == 5


def test_what_has_ended_since_the_walk_is_left_out() -> None:
    kernel = Kernel(50)
    question = FlowQuestion(order=FlowOrder(SortKey.STARTED), count=50)
    found = kernel.scan.page(question, kernel.services).flows
    for table in ("flows", "opening"):
        kernel.maps[table].delete_many(list(kernel.maps[table].entries)[:10])
    left = kernel.scan.page(question, kernel.services).flows
    assert 0 < len(left) < len(found)


def test_a_walk_can_be_ended() -> None:
    kernel = Kernel(20)
    kernel.scan.stop()
    with pytest.raises(Stopped):
        kernel.scan.page(FlowQuestion(), kernel.services)


def test_only_a_few_rankings_are_kept() -> None:
    kernel = Kernel(20)
    for port in range(1, 30):
        kernel.scan.page(FlowQuestion(FlowFilter(port=port)), kernel.services)
    assert len(kernel.scan._rankings) < 10
