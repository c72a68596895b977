"""routelookup: the kernel's own answer to where an address is."""

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel.routelookup import Way, hardware_address, route_to, way_to
from rig import Rig

pytestmark = pytest.mark.requires("root", "netns", "veth", commands=["ip"])


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        yield built


@pytest.mark.parametrize(
    ("address", "interface"),
    [
        ("10.1.0.2", "inside0"),
        ("10.2.0.77", "outside0"),
        ("fd01::2", "inside0"),
        ("fd02::9", "outside0"),
        ("10.1.0.1", None),
        ("fd01::1", None),
        ("127.0.0.1", None),
        ("192.0.2.1", None),
        ("2001:db8::1", None),
        ("224.0.0.1", None),
    ],
)
def test_the_way_is_that_of_the_routing_table(rig: Rig, address: str, interface: str | None) -> None:
    assert rig.middle.call(way_to, ip_address(address)) == interface


def test_the_gateway_is_told_where_there_is_one(rig: Rig) -> None:
    rig.middle.ip("route add 198.51.100.0/24 via 10.2.0.2", "route add 2001:db8:7::/64 via fd02::2")
    asked = {name: rig.middle.call(route_to, ip_address(name)) for name in ("198.51.100.9", "10.2.0.9")}
    assert asked == {
        "198.51.100.9": Way("outside0", ip_address("10.2.0.2")),
        "10.2.0.9": Way("outside0"),
    }
    assert rig.middle.call(route_to, ip_address("2001:db8:7::1")) == Way("outside0", ip_address("fd02::2"))
    rig.middle.ip("route del 198.51.100.0/24", "route del 2001:db8:7::/64")


def test_a_route_that_refuses_leads_nowhere(rig: Rig) -> None:
    for kind in ("blackhole", "unreachable", "prohibit"):
        rig.middle.run(["ip", "route", "add", kind, "198.51.100.0/24"])
        assert rig.middle.call(way_to, ip_address("198.51.100.1")) is None
        rig.middle.run(["ip", "route", "del", kind, "198.51.100.0/24"])


def test_link_addresses(rig: Rig) -> None:
    shown = rig.middle.run(["cat", "/sys/class/net/lo/address"], check=False)
    assert isinstance(shown, subprocess.CompletedProcess)
    assert rig.middle.call(hardware_address, "lo") == bytes(6)
    assert any(rig.middle.call(hardware_address, "inside0"))
    with pytest.raises(OSError, match="No such device"):
        rig.middle.call(hardware_address, "nothing0")
