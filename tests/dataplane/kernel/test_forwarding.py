"""forwarding: on for both families, and router advertisements are still listened to."""

from pathlib import Path

import pytest

from marchproxy.dataplane.kernel.forwarding import Forwarding
from marchproxy.dataplane.kernel.sysctls import Sysctls
from tests.dataplane.kernel.support import Wire, ip

pytestmark = pytest.mark.requires("root", "netns", "veth", "ipv6")


@pytest.fixture
def sysctls(tmp_path: Path) -> Sysctls:
    return Sysctls(tmp_path / "sysctls.json")


def state(sysctls: Sysctls, interface: str) -> tuple[str | None, ...]:
    names = (f"net/ipv{four_or_six}/conf/{interface}/forwarding" for four_or_six in (4, 6))
    return (*map(sysctls.read, names), sysctls.read(f"net/ipv6/conf/{interface}/accept_ra"))


def test_on_and_back(wire: Wire, sysctls: Sysctls) -> None:
    assert state(sysctls, wire.near) == ("0", "0", "1")
    Forwarding(sysctls).enable(wire.near)
    assert state(sysctls, wire.near) == ("1", "1", "2")
    sysctls.restore()
    assert state(sysctls, wire.near) == ("0", "0", "1")


def test_what_was_on_stays_on(wire: Wire, sysctls: Sysctls) -> None:
    before = Sysctls(Path("/dev/null"))
    for version in (4, 6):
        Path(f"/proc/sys/net/ipv{version}/conf/{wire.near}/forwarding").write_text("1")
    Forwarding(sysctls).enable(wire.near)
    assert sysctls.restore() == []
    assert state(before, wire.near) == ("1", "1", "1")


def test_who_listens_to_no_advertisements_goes_on_doing_so(wire: Wire, sysctls: Sysctls) -> None:
    Path(f"/proc/sys/net/ipv6/conf/{wire.near}/accept_ra").write_text("0")
    Forwarding(sysctls).enable(wire.near)
    assert state(sysctls, wire.near) == ("1", "1", "0")


def test_a_name_with_a_dot(wire: Wire, sysctls: Sysctls) -> None:
    ip("link", "set", wire.near, "down")
    ip("link", "set", wire.near, "name", "near.10")
    Forwarding(sysctls).enable("near.10")
    assert state(sysctls, "near.10") == ("1", "1", "2")
    assert len(sysctls.restore()) == 3


def test_an_interface_that_is_not_there(namespace: None, sysctls: Sysctls) -> None:
    Forwarding(sysctls).enable("nowhere0")
    assert sysctls.restore() == []
