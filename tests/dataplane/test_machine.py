"""The network devices of a machine."""

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.machine import Device, devices
from rig import Rig

pytestmark = pytest.mark.requires("root", "netns", "veth")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=2) as built:
        yield built


def test_all_but_loopback(rig: Rig) -> None:
    found = {device.name: device for device in rig.middle.call(devices)}
    assert found.keys() == {"inside0", "inside1", "outside0"}
    assert found["inside0"] == Device("inside0", True, (ip_address("10.1.0.1"), ip_address("fd01::1")))


def test_the_default_route_and_the_way_to_the_operator(rig: Rig) -> None:
    rig.middle.ip("route add default via 10.2.0.2", "link set inside1 down")
    try:
        found = {device.name: device for device in rig.middle.call(devices, ip_address("10.1.0.2"))}
    finally:
        rig.middle.ip("route delete default", "link set inside1 up")
    assert [name for name, device in found.items() if device.default] == ["outside0"]
    assert [name for name, device in found.items() if device.session] == ["inside0"]
    assert [name for name, device in found.items() if not device.up] == ["inside1"]
