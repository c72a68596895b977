"""sourcepools: what errors come from and what leaves masquerades with, whatever becomes of addresses."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from marchproxy.dataplane.kernel import layouts, sourcepools
from marchproxy.dataplane.kernel.addresses import OwnAddresses
from marchproxy.dataplane.kernel.sourcepools import SourcePools, source_tables
from marchproxy.model.entities import Interface, Role
from tests.dataplane.kernel.fakes import FakeMap

INSIDE = Interface("inside0", Role.INSIDE)
OUTSIDE = Interface("outside0", Role.OUTSIDE, masquerade=True)
HOST = {
    1: OwnAddresses((IPv4Address("10.1.0.1"), IPv4Address("10.1.9.1")), (IPv6Address("fd01::1"),)),
    2: OwnAddresses((IPv4Address("192.0.2.1"), IPv4Address("192.0.2.9")), (IPv6Address("2001:db8::1"),)),
}


def pool(entry: bytes) -> list[str]:
    """The addresses of a packed pool."""
    v4, v6, v4_count, v6_count = layouts.NAT_POOL.struct.unpack(entry)
    return [
        str(layouts.read_address(raw[16 * at : 16 * at + 16]))
        for raw, count in ((v4, v4_count), (v6, v6_count))
        for at in range(count)
    ]


def own(entry: bytes) -> list[str]:
    """The addresses of errors, of both versions."""
    return [str(layouts.read_address(raw)) for raw in layouts.OWN_ADDRESSES.struct.unpack(entry)]


def test_masquerade_takes_the_interface_s_own_primary_addresses() -> None:
    tables = source_tables({1: INSIDE, 2: OUTSIDE}, HOST)
    assert tables.pools.keys() == {2}
    assert pool(tables.pools[2]) == ["192.0.2.1", "2001:db8::1"]
    assert tables.problems == ()


def test_or_those_that_the_operator_names_each_version_by_itself() -> None:
    named = Interface("outside0", Role.OUTSIDE, masquerade=True, nat_addresses=("192.0.2.9", "192.0.2.7"))
    assert pool(source_tables({2: named}, HOST).pools[2]) == ["192.0.2.9", "192.0.2.7", "2001:db8::1"]


def test_more_than_there_is_room_for_is_said() -> None:
    many = tuple(f"192.0.2.{last}" for last in range(1, 12))
    named = Interface("outside0", Role.OUTSIDE, masquerade=True, nat_addresses=many)
    tables = source_tables({2: named}, HOST)
    assert pool(tables.pools[2]) == [*many[:8], "2001:db8::1"]
    (said,) = tables.problems
    assert said == "outside0: of 11 IPv4 addresses to masquerade with, the first 8 are used"


def test_masquerade_without_an_address_is_said_and_lets_nothing_out_as_itself() -> None:
    tables = source_tables({2: OUTSIDE}, {1: HOST[1]})
    assert pool(tables.pools[2]) == []
    (said,) = tables.problems
    assert said.startswith("outside0: it masquerades, and has no address")


def test_one_version_may_be_missing() -> None:
    tables = source_tables({2: OUTSIDE}, {2: OwnAddresses(HOST[2].v4)})
    assert pool(tables.pools[2]) == ["192.0.2.1"]
    assert tables.problems == ()


def test_errors_come_from_the_interface_or_else_from_any_other() -> None:
    tables = source_tables({1: INSIDE, 2: OUTSIDE, 3: INSIDE}, HOST)
    assert own(tables.own[1]) == ["10.1.0.1", "fd01::1"]
    assert own(tables.own[2]) == ["192.0.2.1", "2001:db8::1"]
    assert own(tables.own[3]) == ["10.1.0.1", "fd01::1"]
    assert own(source_tables({1: INSIDE}, {}).own[1]) == ["::", "::"]


class Kernel:
    """Both maps, and what the host's addresses are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.own, self.pools = FakeMap("own_addresses"), FakeMap("nat_pools")
        self.follower = SourcePools(self.own, self.pools)
        self.host = dict(HOST)
        self.asked = 0
        monkeypatch.setattr(sourcepools, "interface_addresses", self._ask)

    def _ask(self) -> dict[int, OwnAddresses]:
        self.asked += 1
        return self.host

    @property
    def masquerading(self) -> dict[int, list[str]]:
        return {layouts.U32.unpack(key)[0]: pool(entry) for key, entry in self.pools.entries.items()}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_addresses_are_asked_for_only_when_they_may_be_others(kernel: Kernel) -> None:
    kernel.follower.follow({1: INSIDE, 2: OUTSIDE}, moved=False)
    written = kernel.pools.written + kernel.own.written
    for _ in range(5):
        kernel.follower.follow({1: INSIDE, 2: OUTSIDE}, moved=False)
    assert kernel.asked == 1
    kernel.follower.follow({1: INSIDE, 2: OUTSIDE}, moved=True)
    assert kernel.asked == 2
    assert kernel.pools.written + kernel.own.written == written, "nothing changed"


def test_changes_are_followed(kernel: Kernel) -> None:
    kernel.follower.follow({2: OUTSIDE}, moved=False)
    assert kernel.masquerading == {2: ["192.0.2.1", "2001:db8::1"]}
    kernel.host[2] = OwnAddresses((IPv4Address("198.51.100.7"),))
    kernel.follower.follow({2: OUTSIDE}, moved=True)
    assert kernel.masquerading == {2: ["198.51.100.7"]}
    del kernel.host[2]
    kernel.follower.follow({2: OUTSIDE}, moved=True)
    assert kernel.masquerading == {2: []}
    assert kernel.follower.problems
    kernel.follower.follow({1: INSIDE}, moved=False)
    assert kernel.masquerading == {}
    assert not kernel.follower.problems
    assert kernel.own.entries.keys() == {layouts.U32.pack(1)}


def test_what_an_earlier_daemon_left_goes(kernel: Kernel) -> None:
    kernel.pools.set(layouts.U32.pack(9), bytes(layouts.NAT_POOL.size))
    kernel.follower.follow({1: INSIDE}, moved=False)
    assert kernel.masquerading == {}
