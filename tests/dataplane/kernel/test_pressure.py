"""pressure: what runs short is named before it has."""

import re

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.flows import FlowTable, Timeouts
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.kernel.pressure import WARN, Census, PortUse, Pressure
from marchproxy.dataplane.records import TableFill
from tests.dataplane.kernel.conversations import Conversation
from tests.dataplane.kernel.fakes import FakeCounts, FakeMap

PORTS = NatPorts(20000, 100)


def census(flows: FakeMap, ports: NatPorts = PORTS) -> Census:
    """What one walk finds."""
    maps = {
        "flows": flows,
        "opening": FakeMap("opening"),
        "tunnels": FakeMap("tunnels"),
        "beginnings": FakeCounts(),
    }
    table = FlowTable(maps, MappingNames(FakeMap("mapping_names", value_size=128)), Timeouts(), ports)
    return table.expire(lambda _: None)


def claimed(count: int, **fields: str | int) -> FakeMap:
    """Flows that hold that many ports of the range towards one backend."""
    flows = FakeMap("flows")
    for number in range(count):
        Conversation(id=number, port=number, nat_port=PORTS.first + number, **fields).put(flows)  # type: ignore[arg-type]
    return flows


def test_ports_are_counted_for_each_address_of_ours() -> None:
    flows = claimed(30)
    for number in range(10):
        Conversation(
            id=number, port=number, nat_port=PORTS.first + number, backend="fd02::2", protocol=layouts.UDP
        ).put(flows)
    use = census(flows).port_use()
    assert use == [
        PortUse("10.2.0.1", "10.2.0.2:8080/tcp", 30, 100),
        PortUse("fd02::1", "[fd02::2]:8080/udp", 10, 100),
    ]
    assert use[0].fill == TableFill("ports of 10.2.0.1", 30, 100)


def test_the_busiest_destination_counts() -> None:
    """A port may be used towards each destination, so their sum says nothing."""
    flows = claimed(30)
    for number in range(40):
        Conversation(
            id=100 + number, port=1000 + number, nat_port=PORTS.first + number, backend="10.2.0.3"
        ).put(flows)
    assert census(flows).port_use() == [PortUse("10.2.0.1", "10.2.0.3:8080/tcp", 40, 100)]


def test_flows_without_nat_claim_none() -> None:
    flows = FakeMap("flows")
    straight = Conversation(
        client="10.2.0.1", listener="10.2.0.2", listen_port=8080, port=20000, nat_port=20000
    )
    straight.put(flows)
    assert census(flows).port_use() == []


def test_a_wide_range_is_estimated() -> None:
    flows = FakeMap("flows")
    ports = NatPorts()
    for number in range(0, ports.count, 2):
        Conversation(id=number, port=number, nat_port=ports.first + number).put(flows)
    (use,) = census(flows, ports).port_use()
    assert use.limit == ports.count
    assert use.used == pytest.approx(ports.count / 2, rel=0.05)


def found(**fields: int) -> Census:
    """A census with these counts."""
    made = Census(PORTS)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"established": 799}, None),
        ({"established": 800}, "the flow table is filling up: 800 of 1000 entries"),
        ({"established": 999}, "the flow table is full .* new ones are refused .FLOW_TABLE_FULL"),
        ({"opening": 100, "half_open": 79}, None),
        ({"opening": 100, "half_open": 80}, "80 entries of half-open flows in a table of 100"),
    ],
    ids=str,
)
def test_tables_warn_from_four_fifths_on(fields: dict[str, int], warning: str | None) -> None:
    pressure = Pressure(1000, 100)
    assert not pressure.problems
    pressure.update(found(**fields))
    if warning is None:
        assert not pressure.problems
    else:
        said = "".join(pressure.problems)
        assert re.search(warning, said)
    pressure.update(found())
    assert not pressure.problems


def test_ports_warn_before_they_run_out() -> None:
    pressure = Pressure(1 << 20, 1 << 17)
    pressure.update(census(claimed(int(WARN * 100) - 1)))
    assert not pressure.problems
    pressure.update(census(claimed(int(WARN * 100))))
    said = "".join(pressure.problems)
    assert said == (
        "source ports of 10.2.0.1 towards 10.2.0.2:8080/tcp run short: about 80 of 100 in use,"
        " then new flows are refused (NO_NAT_PORT)"
    )
    assert pressure.fill[2] == TableFill("ports of 10.2.0.1", 80, 100)
    assert [each.name for each in pressure.fill] == ["flows", "opening", "ports of 10.2.0.1"]
