"""The difference between two snapshots, as a value that can be shown, stored, applied and reversed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from marchproxy.model.documents import Document, Entity, read_interface, read_mapping, read_service, to_document
from marchproxy.model.errors import MarchproxyError
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
    """What turns `old` into `new`, removals last within a kind so that references stay valid while reading."""
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
    """Apply changes. Entities that no change names stay the same objects, which is what makes recompiling cheap.

    Raises `MarchproxyError` where a change's `before` is not what the snapshot holds.
    """
    interfaces: dict[str, Entity] = {item.name: item for item in snapshot.interfaces}
    clusters = {cluster.name: cluster for cluster in snapshot.clusters}
    touched: dict[tuple[str, Kind], dict[str, Entity]] = {}
    for change in changes:
        if change.kind is Kind.CLUSTER:
            if change.after is None:
                clusters.pop(change.name, None)
            else:
                clusters.setdefault(change.name, Cluster(change.name))
        elif change.kind is Kind.INTERFACE:
            _patch_one(interfaces, change)
        else:
            key = (change.cluster, change.kind)
            if key not in touched:
                holder = clusters.get(change.cluster, Cluster(change.cluster))
                items = holder.services if change.kind is Kind.SERVICE else holder.mappings
                touched[key] = {item.name: item for item in items}
            _patch_one(touched[key], change)
    for (name, kind), entities in touched.items():
        if name in clusters:
            field = "services" if kind is Kind.SERVICE else "mappings"
            ordered: Any = tuple(entities[key] for key in sorted(entities))
            clusters[name] = replace(clusters[name], **{field: ordered})
    return Snapshot(
        tuple(clusters[name] for name in sorted(clusters)),
        tuple(interfaces[name] for name in sorted(interfaces)),  # type: ignore[misc]
    )


_READERS: dict[Kind, Callable[[object], Entity]] = {Kind.SERVICE: read_service, Kind.MAPPING: read_mapping, Kind.INTERFACE: read_interface}


def _patch_one(entities: dict[str, Entity], change: Change) -> None:
    held = entities.get(change.name)
    if (to_document(held) if held else None) != change.before:
        raise MarchproxyError(f"{change.kind} {change.name!r} is not what the change expects it to be")
    if change.after is None:
        del entities[change.name]
    else:
        entities[change.name] = _READERS[change.kind](change.after)


def _diff[T: Entity](kind: Kind, cluster: str, old: tuple[T, ...], new: tuple[T, ...]) -> list[Change]:
    before = {item.name: item for item in old}
    after = {item.name: item for item in new}
    changed = [
        Change(kind, cluster, name, to_document(before[name]) if name in before else None, to_document(item))
        for name, item in after.items()
        if before.get(name) is not item and before.get(name) != item
    ]
    removed = [Change(kind, cluster, name, to_document(before[name]), None) for name in before if name not in after]
    return changed + removed
