"""driver: what `auto` comes to."""

import pytest

from marchproxy.dataplane.kernel import driver
from marchproxy.dataplane.kernel.driver import choose_mode, driver_of
from marchproxy.model.entities import Mode
from tests.dataplane.kernel.support import Wire


@pytest.mark.requires("root", "netns", "veth")
def test_a_virtual_device_tells_its_driver(wire: Wire) -> None:
    assert driver_of(wire.near) == "veth"
    assert choose_mode(wire.near, Mode.AUTO) is Mode.TC


def test_a_device_that_does_not_tell_gets_tc() -> None:
    assert driver_of("lo") == ""
    assert driver_of("nowhere0") == ""
    assert choose_mode("lo", Mode.AUTO) is Mode.TC


@pytest.mark.parametrize("name", ["mlx5_core", "ice", "ixgbe", "ena"])
def test_hardware_with_native_redirect_gets_xdp(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "driver_of", lambda _: name)
    assert choose_mode("eth0", Mode.AUTO) is Mode.XDP


@pytest.mark.parametrize("mode", [Mode.TC, Mode.XDP, Mode.XDP_GENERIC])
def test_what_the_operator_says_is_done(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "driver_of", lambda _: "mlx5_core")
    assert choose_mode("eth0", mode) is mode
