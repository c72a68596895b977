"""Backends and the pools that hold them."""

import gc
import weakref
from ipaddress import ip_address

import pytest

from marchproxy.model.entities import Balance
from marchproxy.model.reason import Reason
from marchproxy.policy.checks import BackendKey
from marchproxy.policy.compile import compile_plan
from marchproxy.policy.plan import Backend, Plan, Pool, Rule
from tests.policy.build import NOW, compiled, mapping, plan, service, snapshot


def pools(*entities: object) -> list[Pool | None]:
    """The pool of each listener's first rule."""
    return [listener.rules[0].pool for listener in plan(*entities).listeners]  # type: ignore[arg-type]


def backends(pool: Pool | None) -> list[str]:
    """The backends as text."""
    assert pool is not None
    return [f"{item.address} {item.port} {item.service} {item.weight}" for item in pool.backends]


def test_backends_are_sorted_by_value_and_carry_port_service_and_weight() -> None:
    a = service("a", "10.1.0.10", "10.1.0.9", port=8080, weight=3)
    b = service("b", "10.1.0.9", "10.1.0.1", port=81)
    (pool,) = pools(a, b, mapping("m", "all", "a,b", "192.0.2.1:80"))
    assert backends(pool) == [
        "10.1.0.1 81 b 1",
        "10.1.0.9 81 b 1",
        "10.1.0.9 8080 a 3",
        "10.1.0.10 8080 a 3",
    ]


@pytest.mark.parametrize(
    ("ports", "service_port", "expected"),
    [
        ("443", 8080, 443),
        ("443", None, 443),
        ("", 8080, 8080),
        ("", None, 80),
        ("8000-8100", 8080, 8080),
        ("80,443", None, 80),
    ],
)
def test_the_port_is_the_mappings_then_the_services_then_the_listeners(
    ports: str, service_port: int | None, expected: int
) -> None:
    web = service("web", "10.1.0.1", port=service_port)
    (pool,) = pools(web, mapping("m", "all", "web", "192.0.2.1:80", ports=ports))
    assert pool is not None
    assert [backend.port for backend in pool.backends] == [expected]


def test_each_family_has_its_own_backends() -> None:
    web = service("web", "10.1.0.1", "2001:db8:1::1", port=8080)
    four, six = pools(web, mapping("m", "all", "web", "*:80"))
    assert backends(four) == ["10.1.0.1 8080 web 1"]
    assert backends(six) == ["2001:db8:1::1 8080 web 1"]


def test_equal_backends_are_one_pool_with_one_table() -> None:
    web, six = service("web", "10.1.0.1", "10.1.0.2", port=8080), service("six", "2001:db8:1::1")
    first, second, third = pools(
        web,
        six,
        mapping("a", "all", "web", "192.0.2.1:80"),
        mapping("b", "all", "web", "192.0.2.2:80", ports="8080"),
        mapping("c", "all", "web,six", "192.0.2.3:80"),
    )
    assert first is second
    assert first is third


def test_the_table_is_of_the_weighted_backends() -> None:
    light, heavy = service("light", "10.1.0.1"), service("heavy", "10.1.0.2", weight=3)
    (pool,) = pools(light, heavy, mapping("m", "all", "light,heavy", "192.0.2.1:80"))
    assert pool is not None
    assert pool.backends[1] == Backend(pool.backends[1].address, 80, "heavy", 3)
    assert pool.table.count(1) / len(pool.table) == pytest.approx(0.75, abs=0.01)


def test_two_services_at_one_address_and_port_both_count() -> None:
    a, b = service("a", "10.1.0.1"), service("b", "10.1.0.1")
    (pool,) = pools(a, b, mapping("m", "all", "a,b", "192.0.2.1:80"))
    assert pool is not None
    assert abs(pool.table.count(0) - pool.table.count(1)) <= 1


def test_a_pool_is_forgotten_with_the_last_plan_that_uses_it() -> None:
    web = service("web", "10.1.0.1")
    first = compiled(web, mapping("m", "all", "web", "192.0.2.1:80"))
    pool = first.plan.listeners[0].rules[0].pool
    assert pool is not None
    remembered = weakref.ref(pool)
    second = compile_plan(snapshot(web), now=NOW, previous=first)
    del first, pool
    gc.collect()
    assert second.plan.listeners == ()
    assert remembered() is None


CHECKED = service("web", "10.1.0.1", "10.1.0.2", "10.1.0.3", port=8080, health="tcp")
TO_WEB = mapping("m", "all", "web", "192.0.2.1:80")


def down(*addresses: str, port: int = 8080, name: str = "web") -> frozenset[BackendKey]:
    """What checks say."""
    return frozenset(BackendKey(name, ip_address(address), port) for address in addresses)


def only_rule(made: Plan) -> Rule:
    """The rule of the only listener."""
    (listener,) = made.listeners
    (rule,) = listener.rules
    return rule


def taking(rule: Rule) -> list[str]:
    """Addresses of the backends that new flows go to."""
    assert rule.pool is not None
    return [str(backend.address) for backend in rule.pool.taking]


def test_a_backend_that_is_down_leaves_the_table_and_stays_in_the_pool() -> None:
    rule = only_rule(plan(CHECKED, TO_WEB, down=down("10.1.0.2")))
    assert taking(rule) == ["10.1.0.1", "10.1.0.3"]
    assert rule.reason is Reason.FORWARDED
    assert rule.pool is not None
    assert len(rule.pool.backends) == 3
    assert set(rule.pool.table) == {0, 2}


def test_the_flows_of_the_others_stay_where_they_are_when_one_goes_down() -> None:
    before, after = (only_rule(plan(CHECKED, TO_WEB, down=gone)).pool for gone in (down(), down("10.1.0.2")))
    assert before is not None
    assert after is not None
    moved = [old != new for old, new in zip(before.table, after.table, strict=True) if old != 1]
    assert sum(moved) / len(moved) < 0.1


def test_a_drained_backend_takes_no_new_flows() -> None:
    web = service("web", "10.1.0.1", "10.1.0.2", port=8080, drain=["10.1.0.1"])
    assert taking(only_rule(plan(web, TO_WEB))) == ["10.1.0.2"]


def test_without_a_backend_that_takes_any_new_flows_are_refused() -> None:
    rule = only_rule(plan(CHECKED, TO_WEB, down=down("10.1.0.1", "10.1.0.2", "10.1.0.3")))
    assert (rule.reason, taking(rule)) == (Reason.NO_BACKEND, [])


def test_a_family_that_is_all_down_is_still_listened_for() -> None:
    """Otherwise the host itself would answer in its place."""
    web = service("web", "10.1.0.1", "2001:db8:1::1", port=8080, health="tcp")
    four, six = plan(web, mapping("m", "all", "web", "*:80"), down=down("10.1.0.1")).listeners
    assert [four.rules[0].reason, six.rules[0].reason] == [Reason.NO_BACKEND, Reason.FORWARDED]


def test_what_was_found_of_another_port_or_without_checks_does_not_count() -> None:
    everyone = ["10.1.0.1", "10.1.0.2", "10.1.0.3"]
    unchecked = service("web", *everyone, port=8080)
    assert taking(only_rule(plan(CHECKED, TO_WEB, down=down("10.1.0.1", port=81)))) == everyone
    assert taking(only_rule(plan(unchecked, TO_WEB, down=down("10.1.0.1")))) == everyone


def test_an_address_that_answers_no_ping_is_down_on_all_ports() -> None:
    web = service("web", "10.1.0.1", "10.1.0.2", health="icmp")
    made = plan(web, TO_WEB, mapping("n", "all", "web", "192.0.2.1:81"), down=down("10.1.0.1", port=0))
    assert [taking(listener.rules[0]) for listener in made.listeners] == [["10.1.0.2"]] * 2
    assert [watched.backend for watched in made.watched] == [*sorted(down("10.1.0.1", "10.1.0.2", port=0))]


def test_round_robin_has_a_table_of_turns() -> None:
    light, heavy = service("a", "10.1.0.1"), service("b", "10.1.0.2", weight=3)
    pools = [
        only_rule(plan(light, heavy, mapping("m", "all", "a,b", "192.0.2.1:80", balance=balance))).pool
        for balance in ("round-robin", "maglev", "source", "least-connections")
    ]
    turns, *others = pools
    assert turns is not None
    assert sorted(turns.table) == [0, 1, 1, 1]
    assert others[0] == others[1] == others[2] != turns


def test_a_rule_says_how_it_balances() -> None:
    rule = only_rule(plan(CHECKED, mapping("m", "all", "web", "192.0.2.1:80", balance="source")))
    assert rule.balance is Balance.SOURCE


def shared(table: Pool, name: str) -> float:
    """The part of new flows that a service gets."""
    slots = [table.backends[index].service for index in table.table]
    return slots.count(name) / len(slots)


@pytest.mark.parametrize("balance", ["maglev", "round-robin"])
def test_shares_are_those_of_services_however_many_backends_these_have(balance: str) -> None:
    shop = service("shop", "10.1.0.1", "10.1.0.2", "10.1.0.3", weight=7)
    canary = service("canary", "10.1.0.9")
    rule = mapping(
        *("m", "all", "shop,canary", "192.0.2.1:80"),
        weights=["shop=90", "canary=10"],
        balance=balance,
    )
    (pool,) = pools(shop, canary, rule)
    assert pool is not None
    assert shared(pool, "canary") == pytest.approx(0.1, abs=0.004)
    assert [each.weight for each in pool.backends] == [3, 3, 3, 1]


def test_a_service_keeps_its_share_when_one_of_its_backends_is_down() -> None:
    shop, canary = service("shop", "10.1.0.1", "10.1.0.2", drain=["10.1.0.2"]), service("canary", "10.1.0.9")
    (pool,) = pools(
        shop, canary, mapping("m", "all", "shop,canary", "192.0.2.1:80", weights=["shop=3", "canary=1"])
    )
    assert pool is not None
    assert shared(pool, "shop") == pytest.approx(0.75, abs=0.02)
    (pool,) = pools(
        service("shop", "10.1.0.1", drain=["10.1.0.1"]),
        canary,
        mapping("m", "all", "shop,canary", "192.0.2.1:80", weights=["shop=3", "canary=1"]),
    )
    assert pool is not None
    assert shared(pool, "canary") == 1


def test_a_share_of_nothing_gets_no_new_flows() -> None:
    shop, canary = service("shop", "10.1.0.1"), service("canary", "10.1.0.9")
    (pool,) = pools(
        shop, canary, mapping("m", "all", "shop,canary", "192.0.2.1:80", weights=["shop=1", "canary=0"])
    )
    assert pool is not None
    assert shared(pool, "shop") == 1
    assert [backend.service for backend in pool.idle] == ["canary"]
    assert all(backend.weight > 0 for backend in pool.backends)


def test_shares_that_are_far_apart_fit_into_small_numbers() -> None:
    entities = [service("a", *(f"10.1.0.{n}" for n in range(1, 8))), service("b", "10.2.0.1")]
    (pool,) = pools(*entities, mapping("m", "all", "a,b", "192.0.2.1:80", weights=["a=1", "b=997"]))
    assert pool is not None
    assert {backend.weight for backend in pool.backends} == {1, 1000}
