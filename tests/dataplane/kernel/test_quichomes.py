"""quichomes: what policy no longer has is taken out, and nothing is looked through without need."""

from ipaddress import ip_address
from typing import cast

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.quichomes import QuicHomes
from marchproxy.policy.plan import Plan
from tests.dataplane.kernel.fakes import FakeMap
from tests.policy.build import mapping, plan, service

NUMBERS = {"a": 1, "b": 2}


class Watched(FakeMap):
    """Counts how often it is read from end to end."""

    read = 0

    def items(self, batch: int = 1024):  # type: ignore[no-untyped-def]
        self.read += 1
        return super().items(batch)


def policy(*lasts: int, down: tuple[str, ...] = (), protocol: str = "quic") -> Plan:
    servers = service("s", *(f"10.2.0.{last}" for last in lasts), port=443, drain=list(down))
    at = {"a": "192.0.2.1:443", "b": "192.0.2.2:443"}
    return plan(servers, *(mapping(name, "all", "s", listen, protocol) for name, listen in at.items()))


def put(homes: FakeMap, number: int, last: int) -> bytes:
    key = layouts.QUIC_KEY.struct.pack(number, 8, bytes([number, last] * 4))
    at = layouts.pack_address(ip_address(f"10.2.0.{last}"))
    homes.entries[key] = layouts.BACKEND.struct.pack(at, bytes(16), layouts.pack_port(443), 1)
    return key


def test_ids_of_backends_that_are_gone_are_forgotten() -> None:
    held = Watched("quic_homes")
    homes = QuicHomes({"quic_homes": cast(Map, held)}, NUMBERS.__getitem__)
    keys = [put(held, number, last) for number in (1, 2, 3) for last in (2, 3)]
    homes.follow(policy(2, 3))
    assert set(held.entries) == set(keys[:4])
    read = held.read
    homes.follow(policy(2, 3, 4))
    homes.follow(policy(2, 3, 4, down=("10.2.0.3",)))
    assert (held.read, len(held.entries)) == (read, 4)
    homes.follow(policy(2, 4))
    assert set(held.entries) == {keys[0], keys[2]}
    homes.follow(policy(2, 4, protocol="udp"))
    assert not held.entries
