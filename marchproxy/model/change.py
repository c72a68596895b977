"""The difference between two snapshots, as a value that can be shown, stored, applied and reversed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from marchproxy.model.documents import (
    Document,
    Entity,
    read_interface,
    read_mapping,
    read_service,
    to_document,
)
from marchproxy.model.errors import Conflict, InvalidValue, NotFound
from marchproxy.model.names import parse_name
from marchproxy.model.snapshot import Cluster, Snapshot


class Kind(StrEnum):
    """What a change is about."""

    CLUSTER = "cluster"
    INTERFACE = "interface"
    SERVICE = "service"
    MAPPING = "mapping"


@dataclass(frozen=True, slots=True)
class Change:
    """One entity before and after; `before` None: added, `after` None: removed.

    `cluster` is empty for clusters and interfaces. Documents are as `to_document` writes them.
    """

    kind: Kind
    cluster: str
    name: str
    before: Document | None
    after: Document | None

    def reversed(self) -> "Change":
        """The change that undoes this one."""
        return replace(self, before=self.after, after=self.before)


def diff(old: Snapshot, new: Snapshot) -> tuple[Change, ...]:
    """What turns `old` into `new`; removals come last within a kind, a cluster after what it held."""
    changes = [*_diff(Kind.INTERFACE, "", old.interfaces, new.interfaces)]
    before = {cluster.name: cluster for cluster in old.clusters}
    after = {cluster.name: cluster for cluster in new.clusters}
    for name in sorted(before.keys() | after.keys()):
        gone, came = Cluster(name), Cluster(name)
        if name not in before:
            changes.append(Change(Kind.CLUSTER, "", name, None, {"name": name}))
        changes += _diff(Kind.SERVICE, name, before.get(name, gone).services, after.get(name, came).services)
        changes += _diff(Kind.MAPPING, name, before.get(name, gone).mappings, after.get(name, came).mappings)
        if name not in after:
            changes.append(Change(Kind.CLUSTER, "", name, {"name": name}, None))
    return tuple(changes)


def patch(snapshot: Snapshot, changes: Iterable[Change]) -> Snapshot:
    """Apply changes. Entities that no change names stay the same objects, which makes recompiling cheap.

    Raises `Conflict` where a change's `before` is not what the snapshot holds, or a cluster that is to go is
    not empty; `NotFound` where the cluster of a change does not exist; `InvalidValue` for a document.
    """
    interfaces: dict[str, Entity] = {item.name: item for item in snapshot.interfaces}
    clusters = {cluster.name: cluster for cluster in snapshot.clusters}
    touched: _Touched = {}
    for change in changes:
        if change.kind is Kind.CLUSTER:
            _patch_cluster(clusters, touched, change)
        elif change.kind is Kind.INTERFACE:
            _patch_one(interfaces, change)
        else:
            _patch_one(_touch(clusters, touched, change.cluster, change.kind), change)
    for (name, kind), entities in touched.items():
        ordered: Any = tuple(entities[key] for key in sorted(entities))
        clusters[name] = replace(clusters[name], **{f"{kind}s": ordered})
    return Snapshot(
        tuple(clusters[name] for name in sorted(clusters)),
        tuple(interfaces[name] for name in sorted(interfaces)),  # type: ignore[misc]
    )


type _Touched = dict[tuple[str, Kind], dict[str, Entity]]
"""The services and mappings under change, by name; what is not in here stays as it is."""

_READERS: dict[Kind, Callable[[object], Entity]] = {
    Kind.SERVICE: read_service,
    Kind.MAPPING: read_mapping,
    Kind.INTERFACE: read_interface,
}


def _touch(clusters: dict[str, Cluster], touched: _Touched, name: str, kind: Kind) -> dict[str, Entity]:
    if name not in clusters:
        raise NotFound("cluster", name)
    if (name, kind) not in touched:
        items = clusters[name].services if kind is Kind.SERVICE else clusters[name].mappings
        touched[name, kind] = {item.name: item for item in items}
    return touched[name, kind]


def _patch_cluster(clusters: dict[str, Cluster], touched: _Touched, change: Change) -> None:
    name = change.name
    if change.after is not None:
        if name in clusters:
            raise Conflict(f"cluster {name!r} already exists")
        clusters[name] = Cluster(parse_name(name, field="cluster"))
        return
    kinds = (Kind.SERVICE, Kind.MAPPING)
    left = [f"{kind} {item!r}" for kind in kinds for item in _touch(clusters, touched, name, kind)]
    if left:
        hint = "remove what it holds first: " + ", ".join(left[:5]) + (", …" if len(left) > 5 else "")
        raise Conflict(f"cluster {name!r} is not empty", hint=hint)
    del clusters[name]
    for kind in kinds:
        del touched[name, kind]


def _patch_one(entities: dict[str, Entity], change: Change) -> None:
    held = entities.get(change.name)
    if (to_document(held) if held is not None else None) != change.before:
        if change.before is None:
            raise Conflict(f"{change.kind} {change.name!r} already exists")
        what = "removed" if held is None else "changed"
        hint = "look at it again, then repeat the change"
        raise Conflict(f"{change.kind} {change.name!r} was {what} meanwhile", hint=hint)
    if change.after is None:
        entities.pop(change.name, None)
        return
    entity = _READERS[change.kind](change.after)
    if entity.name != change.name:
        raise InvalidValue("name", entity.name, f"{change.name}, the name of the {change.kind} that changes")
    entities[entity.name] = entity


def _diff[T: Entity](kind: Kind, cluster: str, old: tuple[T, ...], new: tuple[T, ...]) -> list[Change]:
    before = {item.name: item for item in old}
    after = {item.name: item for item in new}
    changed = [
        Change(kind, cluster, name, to_document(before[name]) if name in before else None, to_document(item))
        for name, item in after.items()
        if before.get(name) is not item and before.get(name) != item
    ]
    gone = [item for name, item in before.items() if name not in after]
    return changed + [Change(kind, cluster, item.name, to_document(item), None) for item in gone]
