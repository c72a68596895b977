import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.model.appliance import Settings
from marchproxy.model.change import Change, Kind, diff, patch
from marchproxy.model.documents import Document, read_mapping, read_service
from marchproxy.model.errors import Conflict, InvalidValue, NotFound
from marchproxy.model.snapshot import Cluster, Snapshot
from tests.model.strategies import snapshots

WEB: Document = {"name": "web", "addresses": ["10.0.0.1"]}
WEB_8080 = WEB | {"port": 8080}
RULE: Document = {"name": "rule", "sources": ["all"], "destinations": ["web"], "protocols": ["tcp"]}
EMPTY = Snapshot()
HELD = Snapshot((Cluster("default", (read_service(WEB),), (read_mapping(RULE),)),))


def _service(before: Document | None, after: Document | None, *, cluster: str = "default") -> Change:
    return Change(Kind.SERVICE, cluster, "web", before, after)


def _cluster(name: str, *, add: bool) -> Change:
    document = {"name": name}
    return Change(Kind.CLUSTER, "", name, None if add else document, document if add else None)


@given(snapshots(), snapshots())
def test_patch_does_what_diff_found(old: Snapshot, new: Snapshot) -> None:
    changes = diff(old, new)
    assert patch(old, changes) == new
    assert (changes == ()) == (old == new)


@given(snapshots(), snapshots())
def test_reversed_changes_undo(old: Snapshot, new: Snapshot) -> None:
    back = [change.reversed() for change in reversed(diff(old, new))]
    assert patch(new, back) == old


@given(snapshots(), snapshots(), snapshots())
def test_changes_of_several_steps_apply_as_one(first: Snapshot, second: Snapshot, third: Snapshot) -> None:
    """A cluster may go and come back between the ends; what it held before must not return with it."""
    assert patch(first, diff(first, second) + diff(second, third)) == third


@given(snapshots(), snapshots())
def test_what_no_change_names_stays_the_same_object(old: Snapshot, new: Snapshot) -> None:
    changes = diff(old, new)
    named = {(change.kind, change.cluster, change.name) for change in changes}
    patched = patch(old, changes)
    for cluster in old.clusters:
        now = patched.cluster(cluster.name)
        kept = [*now.services, *now.mappings] if now else []
        for kind, items in ((Kind.SERVICE, cluster.services), (Kind.MAPPING, cluster.mappings)):
            for item in items:
                if (kind, cluster.name, item.name) not in named:
                    assert any(item is other for other in kept)


@given(snapshots(), snapshots(), st.randoms(use_true_random=False))
def test_order_between_entities_of_one_cluster_does_not_matter(
    old: Snapshot, new: Snapshot, shuffle: random.Random
) -> None:
    inner = list(diff(old, new))
    if {cluster.name for cluster in old.clusters} == {cluster.name for cluster in new.clusters}:
        shuffle.shuffle(inner)
        assert patch(old, inner) == new


def test_a_diff_says_what_an_operator_did() -> None:
    assert diff(EMPTY, HELD) == (_service(None, WEB), Change(Kind.MAPPING, "default", "rule", None, RULE))
    moved = patch(HELD, [_service(WEB, WEB_8080)])
    assert diff(HELD, moved) == (_service(WEB, WEB_8080),)
    assert diff(HELD, replace(HELD, clusters=(Cluster("default"),))) == tuple(
        change.reversed() for change in diff(EMPTY, HELD)
    )


def test_a_cluster_comes_before_and_goes_after_what_it_holds() -> None:
    lab = Snapshot((*HELD.clusters, replace(HELD.clusters[0], name="lab")))
    added, removed = diff(HELD, lab), diff(lab, HELD)
    assert [change.kind for change in added] == [Kind.CLUSTER, Kind.SERVICE, Kind.MAPPING]
    assert [change.kind for change in removed] == [Kind.SERVICE, Kind.MAPPING, Kind.CLUSTER]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_service(None, WEB), "service 'web' already exists"),
        (_service(WEB_8080, WEB), "service 'web' was changed meanwhile"),
        (_service(WEB_8080, None), "service 'web' was changed meanwhile"),
        (
            Change(Kind.SERVICE, "default", "db", WEB | {"name": "db"}, None),
            "service 'db' was removed meanwhile",
        ),
        (
            Change(Kind.INTERFACE, "", "eth0", {"name": "eth0", "role": "inside"}, None),
            "was removed meanwhile",
        ),
        (_cluster("default", add=True), "cluster 'default' already exists"),
        (_cluster("default", add=False), "cluster 'default' is not empty"),
    ],
)
def test_a_change_of_something_else_is_a_conflict(change: Change, message: str) -> None:
    with pytest.raises(Conflict, match=message):
        patch(HELD, [change])


def test_a_cluster_that_is_not_empty_says_what_it_holds() -> None:
    with pytest.raises(Conflict) as caught:
        patch(HELD, [_cluster("default", add=False)])
    assert caught.value.hint == "remove what it holds first: service 'web', mapping 'rule'"


@pytest.mark.parametrize("change", [_service(None, WEB, cluster="lab"), _cluster("lab", add=False)])
def test_a_change_in_a_cluster_that_does_not_exist(change: Change) -> None:
    with pytest.raises(NotFound, match="cluster 'lab' does not exist"):
        patch(EMPTY, [change])


def test_a_document_is_read_before_it_becomes_an_entity() -> None:
    with pytest.raises(InvalidValue, match="addresses"):
        patch(EMPTY, [_service(None, WEB | {"addresses": ["nowhere at all"]})])
    with pytest.raises(InvalidValue, match="name"):
        patch(EMPTY, [_service(None, WEB | {"name": "other"})])
    with pytest.raises(InvalidValue, match="cluster"):
        patch(EMPTY, [_cluster("two words", add=True)])


def test_nothing_to_nothing_is_no_change() -> None:
    assert patch(HELD, [Change(Kind.SERVICE, "default", "db", None, None)]) == HELD


def test_settings_change_and_never_go() -> None:
    audited = replace(EMPTY, settings=Settings(audit=True))
    (change,) = diff(EMPTY, audited)
    assert change == Change(Kind.SETTINGS, "", "settings", {}, {"audit": True})
    assert patch(EMPTY, [change]) == audited
    assert patch(audited, [change.reversed()]) == EMPTY
    with pytest.raises(Conflict, match="settings cannot be removed"):
        patch(audited, [replace(change, before=change.after, after=None)])
    with pytest.raises(Conflict, match="settings 'settings' was changed meanwhile"):
        patch(audited, [change])
    with pytest.raises(InvalidValue, match="name"):
        patch(EMPTY, [Change(Kind.SETTINGS, "", "other", None, {"audit": True})])


def test_a_cluster_changes_and_keeps_what_it_holds() -> None:
    on = Change(Kind.CLUSTER, "", "default", {"name": "default"}, {"name": "default", "audit": True})
    audited = patch(HELD, [on, _service(WEB, WEB_8080)])
    assert audited.clusters[0].audit
    assert audited.clusters[0].services == (read_service(WEB_8080),)
    assert diff(HELD, audited) == (on, _service(WEB, WEB_8080))
    assert patch(audited, [_service(WEB_8080, WEB), on.reversed()]) == HELD
    with pytest.raises(Conflict, match="cluster 'default' was changed meanwhile"):
        patch(audited, [on])


def test_what_belongs_to_the_appliance_comes_and_goes_by_its_canonical_name() -> None:
    spam = Change(Kind.BLOCK, "", "192.0.2.0/24", None, {"name": "192.0.2.0/24", "reason": "spam"})
    blocked = patch(EMPTY, [spam])
    assert [block.name for block in blocked.blocks] == ["192.0.2.0/24"]
    assert diff(EMPTY, blocked) == (spam,)
    assert patch(blocked, [spam.reversed()]) == EMPTY
    with pytest.raises(InvalidValue, match="name"):
        patch(EMPTY, [Change(Kind.BLOCK, "", "::1/128", None, {"name": "::1/128"})])
    with pytest.raises(Conflict, match="block list 'bad' was removed meanwhile"):
        patch(EMPTY, [Change(Kind.BLOCK_LIST, "", "bad", {"name": "bad"}, None)])
