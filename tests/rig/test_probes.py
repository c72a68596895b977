"""Probes, over plain routing."""

from collections.abc import Iterator

import pytest

from rig import Host, Rig
from rig.probes import PINGERS, Answer, Kind, probe, trace

pytestmark = pytest.mark.requires("root", "netns", "veth", "ipv6")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        built.client.sysctl(PINGERS)
        built.forward()
        yield built


@pytest.fixture(scope="module")
def far(rig: Rig) -> Host:
    return rig.behind(rig.server, mtu=1300)


@pytest.mark.parametrize("kind", ["udp", "icmp"])
def test_hops_of_a_way(rig: Rig, far: Host, kind: Kind) -> None:
    assert rig.client.call(lambda: trace(far.ipv4, kind=kind)) == ["10.1.0.1", "10.2.0.2", far.ipv4]
    assert rig.client.call(lambda: trace(far.ipv6, kind=kind)) == ["fd01::1", "fd02::2", far.ipv6]


def test_what_an_error_says(rig: Rig, far: Host) -> None:
    assert rig.client.call(lambda: probe(far.ipv4, size=1400)) == Answer(rig.server.ipv4, 3, 4, 1300)
    assert rig.client.call(lambda: probe(far.ipv6, size=1400, kind="icmp")) == Answer(
        rig.server.ipv6, 2, 0, 1300
    )
    assert rig.client.call(lambda: probe(far.ipv4, kind="icmp")) == Answer(far.ipv4)
