"""The difference between two snapshots, as a value that can be shown, stored, applied and reversed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from marchproxy.model import snapshot as snapshots
from marchproxy.model.appliance import Settings
from marchproxy.model.documents import Document, Entity, read_entity, to_document
from marchproxy.model.entities import ClusterHead
from marchproxy.model.errors import Conflict, InvalidValue, NotFound
from marchproxy.model.snapshot import Cluster, Snapshot


class Kind(StrEnum):
    """What a change is about."""

    CLUSTER = "cluster"
    INTERFACE = "interface"
    BLOCK = "block"
    BLOCK_LIST = "block_list"
    LIMIT = "limit"
    LISTENER = "listener"
    SETTINGS = "settings"
    SERVICE = "service"
    MAPPING = "mapping"

    @property
    def label(self) -> str:
        """The kind in words."""
        return self.replace("_", " ")


OF_CLUSTER = tuple(Kind(field.removesuffix("s")) for field in snapshots.OF_CLUSTER)
"""Kinds of which every cluster has its own."""
OF_APPLIANCE = (*(Kind(field.removesuffix("s")) for field in snapshots.OF_APPLIANCE), Kind.SETTINGS)
"""Kinds that belong to the appliance and to no cluster."""
ENTITIES: dict[Kind, type[Entity]] = {
    Kind.CLUSTER: ClusterHead,
    Kind.SETTINGS: Settings,
    **{
        Kind(field.removesuffix("s")): entity
        for field, entity in (snapshots.OF_CLUSTER | snapshots.OF_APPLIANCE).items()
    },
}
"""What a change of each kind is a change of."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entity before and after; `before` None: added, `after` None: removed.

    `cluster` is empty for clusters and for what belongs to the appliance. Documents are as `to_document`
    writes them. Settings are always there: they only ever change.
    """

    kind: Kind
    cluster: str
    name: str
    before: Document | None
    after: Document | None

    def reversed(self) -> "Change":
        """The change that undoes this one."""
        return replace(self, before=self.after, after=self.before)


def held(holder: Snapshot | Cluster, kind: Kind) -> tuple[Entity, ...]:
    """All entities of a kind that a cluster, or the appliance, has."""
    if kind is Kind.SETTINGS and isinstance(holder, Snapshot):
        return (holder.settings,)
    entities: tuple[Entity, ...] = getattr(holder, f"{kind}s")
    return entities


def holding[T: (Snapshot, Cluster)](holder: T, contents: Mapping[Kind, Sequence[Entity]]) -> T:
    """The cluster, or the appliance, with these entities of these kinds; they are sorted by name here."""
    fields: dict[str, Any] = {}
    for kind, entities in contents.items():
        if kind is Kind.SETTINGS:
            [fields["settings"]] = entities
        else:
            fields[f"{kind}s"] = tuple(sorted(entities, key=lambda entity: entity.name))
    return replace(holder, **fields)


def diff(old: Snapshot, new: Snapshot) -> tuple[Change, ...]:
    """What turns `old` into `new`; removals come last within a kind, a cluster after what it held."""
    changes = [
        change for kind in OF_APPLIANCE for change in _diff(kind, "", held(old, kind), held(new, kind))
    ]
    before = {cluster.name: cluster for cluster in old.clusters}
    after = {cluster.name: cluster for cluster in new.clusters}
    for name in sorted(before.keys() | after.keys()):
        gone, came = before.get(name), after.get(name)
        heads = _diff(Kind.CLUSTER, "", (gone.head,) if gone else (), (came.head,) if came else ())
        inner = [
            change
            for kind in OF_CLUSTER
            for change in _diff(
                kind, name, held(gone or Cluster(name), kind), held(came or Cluster(name), kind)
            )
        ]
        changes += [*heads, *inner] if came else [*inner, *heads]
    return tuple(changes)


def patch(snapshot: Snapshot, changes: Iterable[Change]) -> Snapshot:
    """Apply changes. Entities that no change names stay the same objects, which makes recompiling cheap.

    Raises `Conflict` where a change's `before` is not what the snapshot holds, or a cluster that is to go is
    not empty; `NotFound` where the cluster of a change does not exist; `InvalidValue` for a document.
    """
    draft = _Draft(snapshot)
    for change in changes:
        draft.apply(change)
    return draft.finished()


class _Draft:
    """A snapshot under change. What no change touches is not copied."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._clusters = {cluster.name: cluster for cluster in snapshot.clusters}
        self._touched: dict[str, dict[Kind, dict[str, Entity]]] = {}
        """By cluster ("" is the appliance), kind and name."""

    def apply(self, change: Change) -> None:
        """Make one change."""
        if change.kind is Kind.CLUSTER:
            self._change_cluster(change)
        elif change.kind is Kind.SETTINGS and change.after is None:
            raise Conflict("settings cannot be removed", hint="set them to their defaults")
        else:
            _change(
                self._entities("" if change.kind in OF_APPLIANCE else change.cluster, change.kind), change
            )

    def finished(self) -> Snapshot:
        """The snapshot with all changes."""
        for name, touched in self._touched.items():
            contents = {kind: tuple(entities.values()) for kind, entities in touched.items()}
            if name:
                self._clusters[name] = holding(self._clusters[name], contents)
            else:
                self._snapshot = holding(self._snapshot, contents)
        return replace(
            self._snapshot, clusters=tuple(self._clusters[name] for name in sorted(self._clusters))
        )

    def _entities(self, cluster: str, kind: Kind) -> dict[str, Entity]:
        if kind in OF_CLUSTER and cluster not in self._clusters:
            raise NotFound("cluster", cluster)
        touched = self._touched.setdefault(cluster, {})
        if kind not in touched:
            holder = self._clusters[cluster] if kind in OF_CLUSTER else self._snapshot
            touched[kind] = {entity.name: entity for entity in held(holder, kind)}
        return touched[kind]

    def _change_cluster(self, change: Change) -> None:
        name = change.name
        if change.before is not None and name not in self._clusters:
            raise NotFound("cluster", name)
        if change.after is None and name in self._clusters:
            self._check_empty(name)
        heads: dict[str, Entity] = {name: self._clusters[name].head} if name in self._clusters else {}
        _change(heads, change)
        if heads:
            own = {field: getattr(heads[name], field) for field in ClusterHead.__dataclass_fields__}
            self._clusters[name] = replace(self._clusters.get(name, Cluster(name)), **own)
        else:
            self._clusters.pop(name, None)
            self._touched.pop(name, None)

    def _check_empty(self, name: str) -> None:
        left = [f"{kind} {item!r}" for kind in OF_CLUSTER for item in self._entities(name, kind)]
        if left:
            hint = "remove what it holds first: " + ", ".join(left[:5]) + (", …" if len(left) > 5 else "")
            raise Conflict(f"cluster {name!r} is not empty", hint=hint)


def _change(entities: dict[str, Entity], change: Change) -> None:
    found = entities.get(change.name)
    if (to_document(found) if found is not None else None) != change.before:
        if change.before is None:
            raise Conflict(f"{change.kind.label} {change.name!r} already exists")
        what = "removed" if found is None else "changed"
        hint = "look at it again, then repeat the change"
        raise Conflict(f"{change.kind.label} {change.name!r} was {what} meanwhile", hint=hint)
    if change.after is None:
        entities.pop(change.name, None)
        return
    entity = read_entity(ENTITIES[change.kind], change.after)
    if entity.name != change.name:
        expected = f"{change.name}, the name of the {change.kind.label} that changes"
        raise InvalidValue("name", entity.name, expected)
    entities[entity.name] = entity


def _diff(kind: Kind, cluster: str, old: Sequence[Entity], new: Sequence[Entity]) -> list[Change]:
    before = {item.name: item for item in old}
    after = {item.name: item for item in new}
    changed = [
        Change(kind, cluster, name, to_document(before[name]) if name in before else None, to_document(item))
        for name, item in after.items()
        if before.get(name) is not item and before.get(name) != item
    ]
    gone = [item for name, item in before.items() if name not in after]
    return changed + [Change(kind, cluster, item.name, to_document(item), None) for item in gone]
