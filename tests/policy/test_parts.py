"""Only what a change reaches is compiled again; the rest is the very object it was."""

from ipaddress import ip_address

import pytest

from marchproxy.model.entities import Mapping
from marchproxy.model.snapshot import Snapshot
from marchproxy.policy.checks import BackendKey
from marchproxy.policy.compile import compile_plan
from marchproxy.policy.directory import Directory
from marchproxy.policy.pools import PoolCache
from marchproxy.policy.rules import Part, Terms, compile_mapping
from tests.policy.build import (
    NOW,
    compiled,
    listener,
    mapping,
    service,
    snapshot,
)

WEB = service("web", "10.1.0.1", port=8080)
OFFICE = service("office", "10.0.0.0/16")


class Count:
    """Counts which mappings are compiled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        monkeypatch.setattr("marchproxy.policy.parts.compile_mapping", self)

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


def test_a_change_of_health_compiles_only_what_sends_there(monkeypatch: pytest.MonkeyPatch) -> None:
    services = [service(f"s{n}", f"10.1.{n}.1", f"10.1.{n}.2", health="tcp") for n in range(40)]
    mappings = [mapping(f"m{n}", "all", f"s{n}", f"192.0.2.{n + 1}:80") for n in range(40)]
    first = compiled(*services, *mappings)
    asked: list[str] = []

    def noting(mapping: Mapping, directory: Directory, pools: PoolCache, terms: Terms) -> Part:
        asked.append(mapping.name)
        return compile_mapping(mapping, directory, pools, terms)

    monkeypatch.setattr("marchproxy.policy.parts.compile_mapping", noting)
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


def test_what_comes_to_the_same_is_the_same_object() -> None:
    first = compile_plan(world(), now=NOW)
    described = mapping("by-name", "office", "web", "192.0.2.1:80", description="the same in more words")
    second = compile_plan(world(by_name=described), now=NOW, previous=first)
    assert second.plan == first.plan
    assert all(map(lambda old, new: old is new, first.plan.listeners, second.plan.listeners))


def test_mappings_that_go_and_come_at_once_are_told_apart() -> None:
    first = compile_plan(world(), now=NOW)
    other = mapping("another", "office", "web", "192.0.2.9:80")
    wanted = world(by_name=None, other=other)
    second = compile_plan(wanted, now=NOW, previous=first)
    assert second == compile_plan(wanted, now=NOW)
    assert compile_plan(world(), now=NOW, previous=second) == first
