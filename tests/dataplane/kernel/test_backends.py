"""backends: pools and backends lie in the tables once, for as long as a rule uses them."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.backends import PoolTables
from marchproxy.dataplane.kernel.entries import Tables
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.model.address import IPAddress
from marchproxy.policy.plan import Backend, Pool

OWN: dict[int, IPAddress | None] = {4: IPv4Address("10.2.0.1"), 6: IPv6Address("fd02::1")}


def pool(*addresses: str, table: Sequence[int] = (0,)) -> Pool:
    return Pool(tuple(Backend(ip_address(text), 80, "web") for text in addresses), tuple(table))


class Made:
    """Pool tables, and routes that can change."""

    def __init__(self) -> None:
        self.tables = Tables()
        self.routes = dict(OWN)
        self.pools = PoolTables(self.tables, lambda address: self.routes[address.version])

    def backend(self, slot: int) -> tuple[IPAddress, IPAddress, int]:
        """Address, own address and port behind a slot."""
        number = layouts.U32.unpack(self.tables.pools.entries[slot])[0]
        address, own, port, _ = layouts.BACKEND.struct.unpack(self.tables.backends.entries[number])
        return layouts.read_address(address), layouts.read_address(own), layouts.read_port(port)


def test_slots_lead_to_backends() -> None:
    made = Made()
    first = made.pools.enter(pool("10.2.0.2", "10.2.0.3", table=(1, 0, 1)))
    found = [made.backend(slot)[0] for slot in range(first, first + 3)]
    assert [str(address) for address in found] == ["10.2.0.3", "10.2.0.2", "10.2.0.3"]
    assert made.backend(first) == (ip_address("10.2.0.3"), OWN[4], 80)


def test_a_pool_is_placed_once_and_goes_with_its_last_rule() -> None:
    made, shared = Made(), pool("10.2.0.2")
    assert made.pools.enter(shared) == made.pools.enter(shared)
    made.pools.leave(shared)
    made.pools.tidy()
    assert len(made.tables.pools.entries) == 2, "a backend, and the turns"
    made.pools.leave(shared)
    made.pools.tidy()
    assert not made.tables.pools.entries
    assert not made.tables.backends.entries


def test_a_pool_that_is_taken_up_again_stays_where_it_is() -> None:
    made, shared = Made(), pool("10.2.0.2")
    first = made.pools.enter(shared)
    made.tables.pools.pending[0].clear()
    made.pools.leave(shared)
    assert made.pools.enter(shared) == first
    made.pools.tidy()
    assert not made.tables.pools.pending[0]


def test_pools_share_backends() -> None:
    made = Made()
    one, two = pool("10.2.0.2", "10.2.0.3", table=(0, 1)), pool("10.2.0.3")
    made.pools.enter(one)
    made.pools.enter(two)
    assert len(made.tables.backends.entries) == 2
    made.pools.leave(one)
    made.pools.tidy()
    assert made.backend(min(made.tables.pools.entries))[0] == ip_address("10.2.0.3")
    assert len(made.tables.backends.entries) == 1


def test_a_backend_listed_twice_in_a_pool() -> None:
    """Two services may name the same address and port."""
    made, twice = Made(), pool("10.2.0.2", "10.2.0.2", table=(0, 1))
    made.pools.enter(twice)
    assert len(made.tables.backends.entries) == 1
    made.pools.leave(twice)
    made.pools.tidy()
    assert not made.tables.backends.entries


def test_own_addresses_follow_the_routes() -> None:
    made = Made()
    four, six = made.pools.enter(pool("10.2.0.2")), made.pools.enter(pool("fd02::2"))
    made.tables.backends.pending[0].clear()
    assert not made.pools.renew_sources()
    made.routes[4] = IPv4Address("10.3.0.1")
    assert made.pools.renew_sources()
    assert made.backend(four)[1] == IPv4Address("10.3.0.1")
    assert made.backend(six)[1] == OWN[6]
    assert len(made.tables.backends.pending[0]) == 1, "only what changed is written"


def test_backends_without_a_route_are_named_in_order() -> None:
    made = Made()
    made.routes = {4: None, 6: None}
    made.pools.enter(pool("fd02::2", "10.2.0.30", "10.2.0.4", table=(0, 1, 2)))
    assert [str(address) for address in made.pools.without_route()] == ["10.2.0.4", "10.2.0.30", "fd02::2"]
    made.routes = dict(OWN)
    made.pools.renew_sources()
    assert made.pools.without_route() == []


@pytest.mark.parametrize(("limit", "what"), [("POOL_SLOTS", "backend slots"), ("BACKENDS", "backends")])
def test_too_many(limit: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, limit, 1)
    made = Made()
    with pytest.raises(PlanTooLarge, match=f"too many {what}: the kernel's table holds 1"):
        made.pools.enter(pool("10.2.0.2", "10.2.0.3", table=(0, 1)))
