"""References of mappings, and what changes between two directories."""

from ipaddress import ip_address, ip_network

from marchproxy.model.entities import Service
from marchproxy.policy.directory import Delta, Directory, Target, build_directory, compare, empty_directory
from tests.policy.build import cluster, service

WEB = service("web", "10.1.0.1")
RED = service("red", "10.2.0.1", collection="colours")
NOTHING = empty_directory("default")


def directory(*services: Service, before: Directory = NOTHING, **hosts: str) -> Directory:
    """A directory; `hosts` has the first label of names under example.com."""
    table = {f"{label}.example.com": (ip_address(text),) for label, text in hosts.items()}
    return build_directory(cluster(*services), table, table.keys(), before)


def test_references_stand_for_services_each_once() -> None:
    found = directory(WEB, RED).resolve(("collection:colours", "collection:none", "ghost", "red", "web"))
    assert found.names == ("red", "web")
    assert (found.unknown, found.empty) == (("ghost",), ("collection:none",))
    assert (found.everyone, found.external) == (False, False)


def test_equal_references_stand_for_the_same_object() -> None:
    held = directory(WEB, RED)
    assert held.resolve(("red", "web")) is held.resolve(("red", "web"))


def test_names_are_resolved_once_each_beside_fixed_addresses() -> None:
    mixed = service("mixed", "a.example.com", "b.example.com", "10.0.0.0/8")
    entry = directory(mixed, a="10.1.0.7", b="10.1.0.7").entries["mixed"]
    assert entry.prefixes == (ip_network("10.0.0.0/8"), ip_network("10.1.0.7"))
    assert entry.backends(4) == [ip_address("10.1.0.7")]
    assert entry.backends(6) == []
    assert entry.ranges() == [ip_network("10.0.0.0/8")]
    assert entry.hosts == ("a.example.com", "b.example.com")


def test_nothing_changed_is_the_same_directory() -> None:
    services = cluster(WEB, RED)
    before = build_directory(services, {}, set(), NOTHING)
    assert build_directory(services, {}, {"unrelated.example.com"}, before) is before


def test_equal_services_keep_their_entries() -> None:
    before = directory(WEB, RED)
    again = directory(
        service("web", "10.1.0.1"), service("red", "10.2.0.9", collection="colours"), before=before
    )
    assert again.entries["web"] is before.entries["web"]
    assert again.entries["red"] is not before.entries["red"]
    assert again.names is before.names


def test_what_changed_is_told_in_terms_of_references() -> None:
    before = directory(WEB, RED)

    def delta(*services: Service) -> Delta:
        return compare(before, directory(*services, before=before))

    nothing: frozenset[str] = frozenset()
    assert delta(WEB, RED) == Delta(nothing, nothing, nothing)
    other = service("red", "10.2.0.9", collection="colours")
    assert delta(WEB, other) == Delta(nothing, nothing, frozenset({"red", "collection:colours"}))
    left = service("red", "10.2.0.1")
    group = frozenset({"collection:colours"})
    assert delta(WEB, left) == Delta(group, group, group | {"red"})
    gone = frozenset({"web", "external"})
    assert delta(RED) == Delta(gone, gone, frozenset({"web"}))
    moved = service("red", "10.2.0.1", collection="colours", port=80)
    assert delta(WEB, moved) == Delta(nothing, group | {"red"}, group | {"red"})
    locked = service("red", "10.2.0.1", collection="colours", auth="token")
    assert delta(WEB, locked) == Delta(nothing, group | {"red", "all"}, group | {"red"})


def test_destinations_are_grouped_by_what_they_want_and_by_port() -> None:
    found = directory(
        service("a", "10.1.0.1", port=443),
        service("b", "10.1.0.2"),
        service("c", "10.1.0.3", port=80),
        service("d", "10.1.0.4", port=443),
        service("e", "10.1.0.5", port=443, auth="token"),
    ).resolve(tuple("abcde"))
    assert found.targets(by_port=True) == (
        Target(("e",), port=443, locked=True),
        Target(("b",)),
        Target(("c",), port=80),
        Target(("a", "d"), port=443),
    )
    assert found.targets(by_port=False) == (Target(("e",), locked=True), Target(("a", "b", "c", "d")))
    assert found.targets(by_port=True) is found.targets(by_port=True)


def test_a_name_that_moves_costs_what_it_touches_and_nothing_else() -> None:
    named = service("named", "n.example.com", collection="colours")
    services = cluster(WEB, RED, named)
    before = build_directory(services, {}, set(), NOTHING)
    table = {"n.example.com": (ip_address("10.9.0.1"),)}
    after = build_directory(services, table, {"n.example.com", "other.example.com"}, before)
    fresh = build_directory(services, table, set(), NOTHING)
    assert after.entries["named"].prefixes == fresh.entries["named"].prefixes == (ip_network("10.9.0.1"),)
    assert after.entries["web"] is before.entries["web"]
    assert list(after.entries) == list(fresh.entries)
    assert (after.hosts, after.collections) == (fresh.hosts, fresh.collections)
    assert after.resolve(("named",)).entries == (after.entries["named"],)
    assert compare(before, after) == Delta(
        frozenset(), frozenset(), frozenset({"named", "collection:colours"})
    )
