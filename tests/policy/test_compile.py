"""From snapshot to plan: listeners, order, expiry, and that compiling again only does what is new."""

import json
import random
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from marchproxy.model.address import IPAddress
from marchproxy.model.change import diff, patch
from marchproxy.model.reason import Reason
from marchproxy.model.snapshot import Cluster, Snapshot, read_snapshot
from marchproxy.policy.checks import BackendKey
from marchproxy.policy.compile import Compiled, compile_plan
from marchproxy.policy.plan import Plan
from tests.policy import strategies
from tests.policy.build import (
    NOW,
    cluster,
    compiled,
    mapping,
    plan,
    service,
    snapshot,
)

WEB = service("web", "10.1.0.1", port=8080)
DUAL = service("dual", "10.1.0.1", "2001:db8:1::1")


def test_the_empty_snapshot_is_the_empty_plan() -> None:
    assert compile_plan(Snapshot(), management=frozenset(), now=NOW).plan == Plan()


def test_listeners_are_sorted_by_transport_family_address_and_port() -> None:
    made = plan(
        WEB,
        DUAL,
        mapping("a", "all", "dual", "*:80", "tcp,udp"),
        mapping("b", "all", "web", "192.0.2.10:80"),
        mapping("c", "all", "web", "192.0.2.9:81"),
        mapping("d", "all", "web", "192.0.2.9:80"),
    )
    assert [str(listener) for listener in made.listeners] == [
        *("0.0.0.0:80/tcp", "192.0.2.9:80/tcp", "192.0.2.9:81/tcp", "192.0.2.10:80/tcp", "[::]:80/tcp"),
        *("0.0.0.0:80/udp", "[::]:80/udp"),
    ]


def test_rules_of_a_listener_are_in_first_match_order() -> None:
    made = plan(
        WEB,
        mapping("late", "all", "web", "192.0.2.1:80", priority=200),
        mapping("b", "all", "web", "192.0.2.1:80"),
        mapping("z", "all", "web", "192.0.2.1:80", action="deny"),
        mapping("a", "all", "web", "192.0.2.1:80"),
        cluster(WEB, mapping("first", "all", "web", "192.0.2.1:80", priority=1), name="other"),
    )
    order = [rule.mapping for rule in made.listeners[0].rules]
    assert order == ["other/first", "z", "a", "b", "late"]


def test_a_deny_that_cannot_be_carried_still_comes_before_allow() -> None:
    made = plan(
        WEB,
        mapping("a", "all", "web", "192.0.2.1:80"),
        mapping("z", "all", "web", "192.0.2.1:80", "http", host="x.example.com", action="deny"),
    )
    assert [rule.mapping for rule in made.listeners[0].rules] == ["z", "a"]


def test_resolved_names_are_sources_and_backends() -> None:
    made = plan(
        service("clients", "c.example.com", "10.0.0.0/8"),
        service("web", "w.example.com"),
        mapping("www", "clients", "web", "192.0.2.1:80"),
        names={"c.example.com": [ip_address("10.2.0.1")], "w.example.com": [ip_address("10.1.0.1")]},
    )
    assert made.sources["clients"] == (ip_network("10.0.0.0/8"), ip_network("10.2.0.1"))
    pool = made.listeners[0].rules[0].pool
    assert pool is not None
    assert [str(backend.address) for backend in pool.backends] == ["10.1.0.1"]


def test_what_a_name_no_longer_resolves_to_is_still_a_source_and_no_backend() -> None:
    parts = (service("web", "w.example.com"), mapping("www", "web", "web", "192.0.2.1:80"))
    names = {"w.example.com": [ip_address("10.1.0.1")]}
    lingering = {"w.example.com": [ip_address("10.1.0.1"), ip_address("10.1.0.2")]}
    made = compile_plan(snapshot(*parts), names=names, lingering=lingering, now=NOW)
    assert made.plan.sources["web"] == (ip_network("10.1.0.1"), ip_network("10.1.0.2"))
    pool = made.plan.listeners[0].rules[0].pool
    assert pool is not None
    assert [str(backend.address) for backend in pool.backends] == ["10.1.0.1"]
    again = compile_plan(snapshot(*parts), names=names, now=NOW, previous=made)
    assert again.plan.sources["web"] == (ip_network("10.1.0.1"),)


def test_an_expired_mapping_is_left_out_and_the_next_expiry_told() -> None:
    soon, later = NOW + timedelta(hours=1), NOW + timedelta(hours=2)
    parts = (
        WEB,
        mapping("a", "all", "web", "192.0.2.1:80", expires=soon.isoformat()),
        mapping("b", "all", "web", "192.0.2.1:80", expires=later.isoformat()),
        mapping("c", "all", "web", "192.0.2.1:80"),
    )

    def state(now: datetime) -> tuple[list[str], datetime | None]:
        made = compiled(*parts, now=now)
        return [rule.mapping[-1] for rule in made.plan.listeners[0].rules], made.next_expiry

    assert state(NOW) == (["a", "b", "c"], soon)
    assert state(soon - timedelta(seconds=1)) == (["a", "b", "c"], soon)
    assert state(soon) == (["b", "c"], later)
    assert state(later) == (["c"], None)


@settings(max_examples=50)
@given(snapshot=strategies.snapshots(), names=strategies.names(), seed=st.randoms(use_true_random=False))
def test_equal_snapshots_compile_to_equal_plans_whatever_the_order_they_came_in(
    snapshot: Snapshot, names: dict[str, tuple[IPAddress, ...]], seed: random.Random
) -> None:
    document = json.loads(snapshot.canonical())
    for held in document["clusters"]:
        for kind in ("services", "mappings"):
            seed.shuffle(held[kind])
        for item in held["services"]:
            seed.shuffle(item["addresses"])
        for item in held["mappings"]:
            seed.shuffle(item["sources"])
            seed.shuffle(item["destinations"])
    seed.shuffle(document["clusters"])
    shuffled = read_snapshot(document)
    turned = {host: tuple(reversed(addresses)) for host, addresses in reversed(names.items())}
    first = compile_plan(snapshot, names=names, now=NOW)
    second = compile_plan(shuffled, names=turned, now=NOW)
    assert first == second
    assert list(first.plan.sources) == list(second.plan.sources)


@settings(max_examples=60)
@given(data=st.data())
def test_compiling_again_is_compiling_from_scratch(data: st.DataObject) -> None:
    current = data.draw(strategies.snapshots())
    made: Compiled | None = None
    for _ in range(4):
        names, now = data.draw(strategies.names()), data.draw(st.sampled_from(strategies.INSTANTS))
        made = compile_plan(current, names=names, now=now, previous=made)
        scratch = compile_plan(current, names=names, now=now)
        assert made == scratch
        assert list(made.plan.sources) == list(scratch.plan.sources)
        current = patch(current, diff(current, data.draw(strategies.successors(current))))


def test_a_removed_cluster_takes_its_listeners_along() -> None:
    other = cluster(WEB, mapping("www", "all", "web", "192.0.2.1:80"), name="other")
    first = compile_plan(snapshot(other), now=NOW)
    assert len(first.plan.listeners) == 1
    assert compile_plan(snapshot(Cluster("default")), now=NOW, previous=first).plan.listeners == ()


def test_what_is_down_in_one_cluster_is_not_down_in_another() -> None:
    web = service("web", "10.1.0.1", port=8080, health="tcp")
    here = cluster(web, mapping("m", "all", "web", "192.0.2.1:80"))
    there = cluster(web, mapping("m", "all", "web", "192.0.2.2:80"), name="other")
    made = plan(here, there, down=frozenset({BackendKey("web", ip_address("10.1.0.1"), 8080)}))
    assert [item.rules[0].reason for item in made.listeners] == [Reason.NO_BACKEND, Reason.FORWARDED]
