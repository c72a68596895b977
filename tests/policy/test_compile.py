"""From snapshot to plan: listeners, order, expiry, and that compiling again only does what is new."""

import json
import random
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marchproxy.model.address import IPAddress
from marchproxy.model.appliance import Settings
from marchproxy.model.change import diff, patch
from marchproxy.model.entities import Interface, Mapping, Service
from marchproxy.model.reason import Reason
from marchproxy.model.snapshot import Cluster, Snapshot, read_snapshot
from marchproxy.policy.checks import BackendKey
from marchproxy.policy.compile import Compiled, compile_plan
from marchproxy.policy.directory import Directory
from marchproxy.policy.plan import Plan
from marchproxy.policy.pools import PoolCache
from marchproxy.policy.rules import Part, Terms, compile_mapping
from tests.policy import strategies
from tests.policy.build import (
    INSIDE,
    NOW,
    OUTSIDE,
    cluster,
    compiled,
    listener,
    mapping,
    plan,
    service,
    snapshot,
    texts,
)

WEB = service("web", "10.1.0.1", port=8080)
DUAL = service("dual", "10.1.0.1", "2001:db8:1::1")
OFFICE = service("office", "10.0.0.0/16")


def test_the_empty_snapshot_is_the_empty_plan() -> None:
    assert compile_plan(Snapshot(), now=NOW).plan == Plan()


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


def test_sources_hold_the_prefixes_of_services_that_rules_need() -> None:
    made = plan(OFFICE, WEB, service("idle", "10.9.0.1"), mapping("www", "office", "web", "*:80"))
    assert made.sources == {"office": (ip_network("10.0.0.0/16"),)}


def test_external_needs_the_prefixes_of_every_service() -> None:
    made = plan(OFFICE, WEB, mapping("www", "external", "web", "*:80"))
    assert set(made.sources) == {"office", "web"}
    assert made.listeners[0].rules[0].excluded == ("office", "web")


def test_names_are_those_the_plan_needs() -> None:
    made = plan(
        service("clients", "c.example.com"),
        service("web", "w.example.com"),
        service("idle", "i.example.com"),
        mapping("www", "clients", "web", "*:80"),
    )
    assert made.names == {"c.example.com", "w.example.com"}


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


def test_clusters_that_share_a_listener_are_told_so() -> None:
    made = plan(
        WEB,
        mapping("www", "all", "web", "192.0.2.1:80"),
        cluster(WEB, mapping("www", "all", "web", "192.0.2.1:80"), name="other"),
    )
    assert texts(made.findings) == [
        "warning listener 192.0.2.1:80/tcp: "
        "clusters default, other share it: one's mappings may decide for the other"
    ]


def test_interfaces_are_taken_over_and_missed() -> None:
    entities = cluster(WEB, mapping("www", "all", "web", "192.0.2.1:80"))
    assert compile_plan(Snapshot((entities,), (INSIDE,)), now=NOW).plan.interfaces == (INSIDE,)
    without = compile_plan(Snapshot((entities,)), now=NOW).plan
    assert texts(without.findings) == [
        "warning interfaces: there are listeners, but no interface that traffic could come in by"
    ]


def test_settings_are_taken_over() -> None:
    settings = Settings(audit=True, resolvers=("9.9.9.9",))
    assert compile_plan(Snapshot(settings=settings), now=NOW).plan.settings is settings


def test_routed_traffic_takes_two_interfaces() -> None:
    def told(*entities: Service | Mapping, interfaces: tuple[Interface, ...]) -> list[str]:
        return texts(compile_plan(Snapshot((cluster(*entities),), interfaces), now=NOW).plan.findings)

    allowing = (OFFICE, WEB, mapping("m", "office", "web"))
    missing = [
        "warning interfaces: mappings without listen address allow routed traffic, which needs two interfaces"
    ]
    assert told(*allowing, interfaces=(INSIDE,)) == missing
    assert told(*allowing, interfaces=()) == missing
    assert told(*allowing, interfaces=(INSIDE, OUTSIDE)) == []
    assert told(OFFICE, WEB, mapping("m", "office", "web", action="deny"), interfaces=(INSIDE,)) == []


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


class Count:
    """Counts which mappings are compiled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        monkeypatch.setattr("marchproxy.policy.compile.compile_mapping", self)

    def __call__(self, mapping: Mapping, directory: Directory, pools: PoolCache, terms: Terms) -> Part:
        self.names.append(mapping.name)
        return compile_mapping(mapping, directory, pools, terms)

    def take(self) -> list[str]:
        """The names since the last call."""
        names, self.names = self.names, []
        return names


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Count:
    """What gets compiled during the test."""
    return Count(monkeypatch)


def world(**changed: object) -> Snapshot:
    """Three listeners: by service, by collection, for external."""
    parts = {
        "office": OFFICE,
        "web": WEB,
        "red": service("red", "10.2.0.1", collection="colours"),
        "by_name": mapping("by-name", "office", "web", "192.0.2.1:80"),
        "by_group": mapping("by-group", "collection:colours", "collection:colours", "192.0.2.1:81"),
        "for_all": mapping("for-all", "external", "web", "192.0.2.1:82"),
        **changed,
    }
    return snapshot(*(part for part in parts.values() if part is not None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"by_name": mapping("by-name", "office", "web", "192.0.2.1:80", priority=7)}, ["by-name"]),
        ({"by_name": None}, []),
        ({"office": service("office", "10.3.0.0/16")}, []),
        ({"web": service("web", "10.1.0.2")}, ["by-name", "for-all"]),
        ({"red": service("red", "10.2.0.2", collection="colours")}, ["by-group"]),
        ({"blue": service("blue", "10.2.0.9", collection="colours")}, ["by-group", "for-all"]),
        ({"red": service("red", "10.2.0.1")}, ["by-group"]),
        ({"office": None}, ["by-name", "for-all"]),
    ],
    ids=["nothing", "mapping", "removed", "source", "backend", "member", "joined", "left", "missing"],
)
def test_only_what_a_change_reaches_is_compiled_again(
    count: Count, changed: dict[str, object], expected: list[str]
) -> None:
    first = compile_plan(world(), now=NOW)
    assert count.take() == ["by-group", "by-name", "for-all"]
    compile_plan(world(**changed), now=NOW, previous=first)
    assert count.take() == expected


def test_a_name_that_resolves_anew_reaches_only_its_service(count: Count) -> None:
    named = service("named", "n.example.com")
    entities = snapshot(named, WEB, mapping("a", "all", "named", "*:80"), mapping("b", "all", "web", "*:81"))
    first = compile_plan(entities, names={"n.example.com": [ip_address("10.1.0.7")]}, now=NOW)
    count.take()
    compile_plan(entities, names={"n.example.com": [ip_address("10.1.0.7")]}, now=NOW, previous=first)
    assert count.take() == []
    compile_plan(entities, names={"n.example.com": [ip_address("10.1.0.8")]}, now=NOW, previous=first)
    assert count.take() == ["a"]


def test_what_did_not_change_is_the_same_object() -> None:
    first = compile_plan(world(), now=NOW)
    changed = mapping("by-name", "office", "web", "192.0.2.1:80", action="deny")
    second = compile_plan(world(by_name=changed), now=NOW, previous=first)
    for text in ("192.0.2.1:81/tcp", "192.0.2.1:82/tcp"):
        assert listener(second.plan, text) is listener(first.plan, text)
    assert listener(second.plan, "192.0.2.1:80/tcp") is not listener(first.plan, "192.0.2.1:80/tcp")
    for name, prefixes in second.plan.sources.items():
        assert prefixes is first.plan.sources[name]


def test_a_removed_cluster_takes_its_listeners_along() -> None:
    other = cluster(WEB, mapping("www", "all", "web", "192.0.2.1:80"), name="other")
    first = compile_plan(snapshot(other), now=NOW)
    assert len(first.plan.listeners) == 1
    assert compile_plan(snapshot(Cluster("default")), now=NOW, previous=first).plan.listeners == ()


def test_a_change_of_health_compiles_only_what_sends_there(monkeypatch: pytest.MonkeyPatch) -> None:
    services = [service(f"s{n}", f"10.1.{n}.1", f"10.1.{n}.2", health="tcp") for n in range(40)]
    mappings = [mapping(f"m{n}", "all", f"s{n}", f"192.0.2.{n + 1}:80") for n in range(40)]
    first = compiled(*services, *mappings)
    asked: list[str] = []

    def noting(mapping: Mapping, directory: Directory, pools: PoolCache, terms: Terms) -> Part:
        asked.append(mapping.name)
        return compile_mapping(mapping, directory, pools, terms)

    monkeypatch.setattr("marchproxy.policy.compile.compile_mapping", noting)
    down = frozenset({BackendKey("s7", ip_address("10.1.7.1"), 80)})
    second = compile_plan(snapshot(*services, *mappings), down=down, now=NOW, previous=first)
    assert asked == ["m7"]
    assert second.plan == compile_plan(snapshot(*services, *mappings), down=down, now=NOW).plan
    changed = [
        new for old, new in zip(first.plan.listeners, second.plan.listeners, strict=True) if old != new
    ]
    assert [str(listener.address) for listener in changed] == ["192.0.2.8"]
    asked.clear()
    third = compile_plan(snapshot(*services, *mappings), now=NOW, previous=second)
    assert asked == ["m7"]
    assert third.plan == first.plan
    asked.clear()
    assert compile_plan(snapshot(*services, *mappings), now=NOW, previous=third).plan == third.plan
    assert asked == []


def test_what_is_down_in_one_cluster_is_not_down_in_another() -> None:
    web = service("web", "10.1.0.1", port=8080, health="tcp")
    here = cluster(web, mapping("m", "all", "web", "192.0.2.1:80"))
    there = cluster(web, mapping("m", "all", "web", "192.0.2.2:80"), name="other")
    made = plan(here, there, down=frozenset({BackendKey("web", ip_address("10.1.0.1"), 8080)}))
    assert [item.rules[0].reason for item in made.listeners] == [Reason.NO_BACKEND, Reason.FORWARDED]
