"""sourceaddress: what the routing table says, without sending anything."""

from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel.sourceaddress import source_towards
from tests.dataplane.kernel.support import Wire, ip

pytestmark = pytest.mark.requires("root", "netns", "veth", "ipv6")


def test_the_address_of_the_way_there(wire: Wire) -> None:
    ip("address", "add", "10.7.0.1/24", "dev", wire.near)
    ip("address", "add", "fd07::1/64", "dev", wire.near, "nodad")
    assert source_towards(ip_address("10.7.0.9")) == ip_address("10.7.0.1")
    assert source_towards(ip_address("fd07::9")) == ip_address("fd07::1")


def test_a_route_may_name_its_source(wire: Wire) -> None:
    ip("address", "add", "10.7.0.1/24", "dev", wire.near)
    ip("address", "add", "10.7.0.2/24", "dev", wire.near)
    ip("route", "add", "192.0.2.0/24", "via", "10.7.0.9", "src", "10.7.0.2")
    assert source_towards(ip_address("192.0.2.1")) == ip_address("10.7.0.2")


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_no_route_no_address(namespace: None, address: str) -> None:
    assert source_towards(ip_address(address)) is None
