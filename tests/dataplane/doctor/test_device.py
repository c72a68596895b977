"""device: asked of the kernel, in the network namespace of whoever asks."""

import pytest

from marchproxy.dataplane.doctor.device import Device, look
from rig import Rig
from rig.waiting import wait_for


def test_loopback_is_there_and_nothing_else_is() -> None:
    found = look("lo")
    assert found is not None
    assert (found.up, found.mtu >= 1500, found.lro) == (True, True, False)
    assert look("gone0") is None


@pytest.mark.requires("root", "netns", "veth")
def test_each_namespace_has_its_own() -> None:
    with Rig() as rig:

        def seen(**expected: object) -> bool:
            """The kernel tells of a link's state a little later."""
            found = rig.client.call(look, "eth0")
            assert isinstance(found, Device)
            return all(getattr(found, name) == value for name, value in expected.items())

        wait_for(lambda: seen(up=True, running=True, driver="veth"), "the device to run")
        rig.client.ip("link set eth0 mtu 1400")
        assert seen(mtu=1400)
        rig.client.ip("link set eth0 down")
        wait_for(lambda: seen(up=False, running=False), "the device to be down")
        assert rig.client.call(look, "inside0") is None
