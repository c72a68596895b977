"""Steps from one snapshot to the next."""

import pytest

from marchproxy.client import edits
from marchproxy.model.appliance import ApplianceListener, Block, BlockList, Limit, ListenerKind, Per
from marchproxy.model.change import Kind
from marchproxy.model.documents import Entity, read_service
from marchproxy.model.endpoint import parse_endpoint
from marchproxy.model.entities import Interface, Role
from marchproxy.model.errors import Conflict, NotFound
from marchproxy.model.snapshot import Cluster, Snapshot

WEB = read_service({"name": "web", "addresses": ["10.0.0.1"]})
HELD = Snapshot((Cluster("default", (WEB,)),))


def test_put_swap_and_drop() -> None:
    other = read_service({"name": "other", "addresses": ["10.0.0.2"]})
    both = edits.put(HELD, Kind.SERVICE, "default", other)
    assert edits.entities(both, Kind.SERVICE, "default") == (other, WEB)
    assert edits.find(both, Kind.SERVICE, "default", "web") is WEB
    changed = read_service({"name": "web", "addresses": ["10.0.0.9"]})
    assert edits.entities(edits.swap(HELD, Kind.SERVICE, "default", changed), Kind.SERVICE, "default") == (
        changed,
    )
    assert edits.drop(both, Kind.SERVICE, "default", "other") == HELD


def test_what_was_changed_meanwhile_is_not_overwritten() -> None:
    mine = read_service({"name": "web", "addresses": ["10.0.0.9"]})
    assert edits.exchange(HELD, Kind.SERVICE, "default", WEB, mine) == edits.swap(
        HELD, Kind.SERVICE, "default", mine
    )
    theirs = edits.swap(
        HELD, Kind.SERVICE, "default", read_service({"name": "web", "addresses": ["10.0.0.3"]})
    )
    with pytest.raises(Conflict, match="service 'web' was changed by somebody else meanwhile"):
        edits.exchange(theirs, Kind.SERVICE, "default", WEB, mine)
    with pytest.raises(NotFound):
        edits.exchange(edits.drop(HELD, Kind.SERVICE, "default", "web"), Kind.SERVICE, "default", WEB, mine)


def test_names_that_are_taken_or_missing() -> None:
    with pytest.raises(Conflict):
        edits.put(HELD, Kind.SERVICE, "default", WEB)
    with pytest.raises(NotFound) as caught:
        edits.find(HELD, Kind.SERVICE, "default", "wbe")
    assert caught.value.hint == "services: web"
    with pytest.raises(NotFound, match="cluster 'lab'"):
        edits.entities(HELD, Kind.MAPPING, "lab")
    with pytest.raises(NotFound) as caught:
        edits.find(HELD, Kind.INTERFACE, "", "eth0")
    assert caught.value.hint == "there are no interfaces yet"


def test_every_kind_of_the_appliance_is_put_swapped_and_dropped() -> None:
    """One way for all: what is named, in words, is the kind."""
    entities: tuple[Entity, ...] = (
        Block("192.0.2.1"),
        BlockList("bad", "0" * 64, 7),
        Limit("fast", Per.TOTAL, flows_per_second=9),
        ApplianceListener("dns@*:53", ListenerKind.DNS, parse_endpoint("*:53")),
        Interface("eth0", Role.INSIDE),
    )
    kinds = (Kind.BLOCK, Kind.BLOCK_LIST, Kind.LIMIT, Kind.LISTENER, Kind.INTERFACE)
    for kind, entity in zip(kinds, entities, strict=True):
        held = edits.put(Snapshot(), kind, "", entity)
        assert edits.entities(held, kind, "") == (entity,)
        assert edits.swap(held, kind, "", entity) == held
        assert edits.drop(held, kind, "", entity.name) == Snapshot()
        with pytest.raises(Conflict, match=f"{kind.label} '") as caught:
            edits.put(held, kind, "", entity)
        assert caught.value.hint == f"marchproxy {kind.label.split()[0]} list shows it"
        with pytest.raises(NotFound, match=f"{kind.label} 'other' does not exist"):
            edits.find(held, kind, "", "other")


def test_a_long_list_of_names_is_cut() -> None:
    many = tuple(read_service({"name": f"s{n:02}", "addresses": ["10.0.0.1"]}) for n in range(30))
    with pytest.raises(NotFound) as caught:
        edits.find(Snapshot((Cluster("default", many),)), Kind.SERVICE, "default", "x")
    assert caught.value.hint.endswith("s09 and 20 more")
