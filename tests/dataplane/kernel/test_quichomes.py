"""quichomes: what policy no longer has is taken out, and what no answer would come back to."""

from ipaddress import ip_address
from typing import cast

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.quichomes import QuicHomes
from marchproxy.model.address import IPAddress
from marchproxy.policy.plan import Plan
from tests.dataplane.kernel.fakes import FakeMap
from tests.policy.build import mapping, plan, service

TABLES = ("quic_homes", "quic_offers")
NUMBERS = {"a": 1, "b": 2}


def policy(*lasts: int, down: tuple[str, ...] = (), protocol: str = "quic") -> Plan:
    servers = service("s", *(f"10.2.0.{last}" for last in lasts), port=443, drain=list(down))
    at = {"a": "192.0.2.1:443", "b": "192.0.2.2:443"}
    return plan(servers, *(mapping(name, "all", "s", listen, protocol) for name, listen in at.items()))


def towards(address: IPAddress) -> IPAddress | None:
    """The appliance's own address; one backend is out of reach."""
    return None if address == ip_address("10.2.0.9") else ip_address("10.2.0.1")


def put(homes: FakeMap, number: int, last: int, own: str = "10.2.0.1") -> bytes:
    key = layouts.QUIC_KEY.struct.pack(number, 8, bytes([number, last] * 4))
    at, source = layouts.pack_address(ip_address(f"10.2.0.{last}")), layouts.pack_address(ip_address(own))
    homes.entries[key] = layouts.BACKEND.struct.pack(at, source, layouts.pack_port(443), 1)
    return key


def _tables(name: str) -> tuple[FakeMap, QuicHomes]:
    """One of both tables, and who keeps them."""
    fakes = {each: FakeMap(each) for each in TABLES}
    maps = {each: cast(Map, fake) for each, fake in fakes.items()}
    return fakes[name], QuicHomes(maps, NUMBERS.__getitem__, towards)


@pytest.mark.parametrize("name", TABLES)
def test_ids_of_backends_that_are_gone_are_forgotten(name: str) -> None:
    held, homes = _tables(name)
    keys = [put(held, number, last) for number in (1, 2, 3) for last in (2, 3)]
    homes.follow(policy(2, 3))
    assert set(held.entries) == set(keys[:4])
    homes.follow(policy(2, 3, 4, down=("10.2.0.3",)))
    assert set(held.entries) == set(keys[:4])
    homes.follow(policy(2, 4))
    assert set(held.entries) == {keys[0], keys[2]}
    # It answers the flows that it has, and is learnt again.
    put(held, 1, 3)
    homes.follow(policy(2, 4))
    assert set(held.entries) == {keys[0], keys[2]}
    homes.follow(policy(2, 4, protocol="udp"))
    assert not held.entries


@pytest.mark.parametrize("name", TABLES)
def test_ids_from_an_address_that_the_appliance_has_no_more_are_forgotten(name: str) -> None:
    held, homes = _tables(name)
    put(held, 1, 2, own="10.2.0.77")
    kept = {put(held, 1, 3), put(held, 1, 9, own="10.2.0.77")}
    homes.follow(policy(2, 3, 9))
    assert set(held.entries) == kept
