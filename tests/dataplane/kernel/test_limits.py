"""limits: what the programs find for an address is what the policy says."""

from ipaddress import ip_address
from struct import unpack

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.entries import Tables
from marchproxy.dataplane.kernel.limits import LimitTables, pace, pack_limit, slots_in_order
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.policy.limits import Allowance
from marchproxy.policy.plan import RateLimit
from tests.limits import packets, rate

EVERYONE = packets("source", 100)
TOTAL = packets("total", 1000)


def built(*limits: RateLimit) -> Tables:
    """The tables of these alone."""
    tables = Tables()
    LimitTables(tables, slots_in_order).settle(limits)
    return tables


def found(tables: Tables, text: str) -> tuple[int, list[int]]:
    """The slots for an address, as the trie finds them: that of its own packets, and the shared ones."""
    address = int.from_bytes(layouts.pack_address(ip_address(text)))
    places = [place for place in tables.limit_prefixes.entries if _is_in(address, *place)]
    if not places:
        return layouts.LIMIT_NONE, []
    number = tables.limit_prefixes.entries[max(places, key=lambda place: place[1])]
    own, count, shared = layouts.LIMIT_SET.struct.unpack(tables.limit_sets.entries[number])
    return unpack("=HHH", own)[0], list(unpack(f"={layouts.LIMIT_SHARED}H", shared))[:count]


def _is_in(address: int, network: int, length: int) -> bool:
    return address >> (128 - length) == network >> (128 - length)


def test_an_address_finds_its_limits() -> None:
    service = rate("s", "service", {"a": "10.0.0.0/8", "b": "10.1.0.0/16,fd00::/8"}, packets_per_second=1)
    tables = built(EVERYONE, TOTAL, service)  # slots 0, 1, and 2 and 3 for the services
    assert found(tables, "10.1.2.3") == (0, [2, 3, 1])
    assert found(tables, "10.2.0.1") == (0, [2, 1])
    assert found(tables, "fd00::1") == (0, [3, 1])
    assert found(tables, "192.0.2.1") == (0, [1])


def test_each_rate_of_the_own_bucket_has_its_limit() -> None:
    tables = built(rate("a", "source", flows_per_second=1), rate("b", "source", packets_per_second=1))
    owns = {layouts.LIMIT_SET.struct.unpack(each)[0] for each in tables.limit_sets.entries.values()}
    nothing = layouts.U16.pack(layouts.LIMIT_NONE)
    assert owns == {3 * nothing, layouts.U16.pack(1) + nothing + layouts.U16.pack(0)}


def test_ipv6_for_all_does_not_mean_ipv4() -> None:
    tables = built(rate("six", "source", {"all6": "::/0"}, packets_per_second=1))
    assert found(tables, "fd00::1") == (0, [])
    assert found(tables, "10.0.0.1") == (layouts.LIMIT_NONE, [])


def test_without_limits_there_is_no_generation() -> None:
    tables = Tables()
    limits = LimitTables(tables, slots_in_order)
    assert tables.limit_generations.entries == {0: 0}
    limits.settle((EVERYONE,))
    assert tables.limit_generations.entries[0] != 0
    limits.settle(())
    assert tables.limit_generations.entries == {0: 0}
    assert not tables.limits.entries
    assert not tables.limit_prefixes.entries


def test_the_generation_is_that_of_whom_limits_hold_for() -> None:
    tables = Tables()
    limits = LimitTables(tables, slots_in_order)
    limits.settle((EVERYONE,))
    first = tables.limit_generations.entries[0]
    limits.settle((packets("source", 200),))
    assert tables.limit_generations.entries[0] == first, "another rate is the same limit"
    limits.settle((packets("source", 200, exempt="10.0.0.1"),))
    assert tables.limit_generations.entries[0] != first
    assert built(EVERYONE).limit_generations.entries[0] == first


def test_a_change_touches_what_differs() -> None:
    tables = Tables()
    limits = LimitTables(tables, slots_in_order)
    many = {"many": ",".join(f"10.0.{number}.0/24" for number in range(100))}
    limits.settle((rate("s", "source", many, packets_per_second=1),))
    for keys in tables.limit_prefixes.pending:
        keys.clear()
    more = {"many": many["many"] + ",10.1.0.0/24"}
    limits.settle((rate("s", "source", more, packets_per_second=1),))
    assert all(len(keys) == 1 for keys in tables.limit_prefixes.pending)


@pytest.mark.parametrize("per_second", [1, 3, 100, 999, 10**6, 3_333_333, 10**9, 10**11])
def test_pace_is_the_rate(per_second: int) -> None:
    step, tolerance = pace(Allowance(per_second, 10))
    assert step / 2**layouts.LIMIT_SHIFT == pytest.approx(1e9 / per_second, rel=0.002)
    assert tolerance == pytest.approx(9e9 / per_second, abs=1)


def test_rates_that_are_not_asked_for_have_no_step() -> None:
    limit = rate("x", "source", bytes_per_second=10**6, burst=1500).limit
    steps, tolerances = layouts.LIMIT.struct.unpack(pack_limit(limit))
    assert layouts.U64_TRIPLE.unpack(steps) == (0, 1000 << layouts.LIMIT_SHIFT, 0)
    assert layouts.U64_TRIPLE.unpack(tolerances) == (0, 1499 * 1000, 0)


def test_more_limits_for_one_address_than_the_kernel_asks_are_refused() -> None:
    total = [
        rate(f"t{number:02}", "total", packets_per_second=1) for number in range(layouts.LIMIT_SHARED + 1)
    ]
    built(EVERYONE, *total[1:])
    with pytest.raises(PlanTooLarge, match="13 limits hold for the same address"):
        built(*total)
