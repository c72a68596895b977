"""tunnels: what admission knew comes back as it was entered."""

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.tunnels import HeldTunnel, Tunnel, TunnelTable
from tests.dataplane.kernel.fakes import FakeMap

KEY = bytes(range(40))


@pytest.fixture
def table() -> TunnelTable:
    return TunnelTable(FakeMap("tunnels", value_size=layouts.TUNNEL.size))


@pytest.mark.parametrize(
    "tunnel",
    [
        Tunnel(),
        Tunnel("default/clients", "token-7", "www.example.org", 1_800_000_000),
        Tunnel("s" * 128, "c" * 64, "n" * 256, (1 << 64) - 1),
        Tunnel("büro/änne", name="xn--bcher-kva.example"),
    ],
)
def test_it_comes_back(table: TunnelTable, tunnel: Tunnel) -> None:
    table.put(HeldTunnel(5, KEY, tunnel))
    assert table.get(5) == HeldTunnel(5, KEY, tunnel)
    assert list(table) == [HeldTunnel(5, KEY, tunnel)]


def test_one_that_is_forgotten_is_gone_and_others_stay(table: TunnelTable) -> None:
    for id in (1, 2):
        table.put(HeldTunnel(id, KEY, Tunnel()))
    table.delete(1)
    table.delete(1)
    assert [held.id for held in table] == [2]


def test_a_long_name_is_cut_off_but_not_a_service(table: TunnelTable) -> None:
    table.put(HeldTunnel(1, KEY, Tunnel(name="n" * 300)))
    held = table.get(1)
    assert held is not None
    assert held.tunnel.name == "n" * 256
    for tunnel in (Tunnel("s" * 129), Tunnel(credential="c" * 65)):
        with pytest.raises(ValueError, match="too long"):
            table.put(HeldTunnel(2, KEY, tunnel))
    assert table.get(2) is None
