"""Steps from one snapshot to the next: one more entity, another in its place, one less."""

from typing import Any, cast

from marchproxy.model.change import OF_APPLIANCE, Change, Kind, held, patch
from marchproxy.model.documents import Document, Entity, to_document
from marchproxy.model.errors import Conflict, NotFound
from marchproxy.model.snapshot import Cluster, Snapshot


def cluster_of(snapshot: Snapshot, name: str) -> Cluster:
    """The cluster, or `NotFound`."""
    cluster = snapshot.cluster(name)
    if cluster is None:
        raise NotFound("cluster", name, hint=_names("clusters", snapshot.clusters))
    return cluster


def entities(snapshot: Snapshot, kind: Kind, cluster: str) -> tuple[Entity, ...]:
    """All entities of a kind that a cluster has, or the appliance."""
    return held(snapshot if kind in OF_APPLIANCE else cluster_of(snapshot, cluster), kind)


def find(snapshot: Snapshot, kind: Kind, cluster: str, name: str) -> Entity:
    """One entity by name, or `NotFound`."""
    among = entities(snapshot, kind, cluster)
    found = next((entity for entity in among if entity.name == name), None)
    if found is None:
        raise NotFound(kind.label, name, hint=_names(f"{kind.label}s", among))
    return found


def put(snapshot: Snapshot, kind: Kind, cluster: str, entity: Entity) -> Snapshot:
    """The snapshot with one more entity; `Conflict` where the name is taken."""
    if any(other.name == entity.name for other in entities(snapshot, kind, cluster)):
        noun = kind.partition("_")[0]
        hint = f"marchproxy {noun} list shows it"
        raise Conflict(f"{kind.label} {entity.name!r} exists already", hint=hint)
    return _patched(snapshot, kind, cluster, None, entity)


def swap(snapshot: Snapshot, kind: Kind, cluster: str, entity: Entity) -> Snapshot:
    """The snapshot with the entity in place of the one of that name."""
    return _patched(snapshot, kind, cluster, find(snapshot, kind, cluster, entity.name), entity)


def exchange(snapshot: Snapshot, kind: Kind, cluster: str, before: Entity, after: Entity) -> Snapshot:
    """The same, for who has looked at `before` for a while: `Conflict` where it is not that any more."""
    if find(snapshot, kind, cluster, before.name) != before:
        raise Conflict(
            f"{kind.label} {before.name!r} was changed by somebody else meanwhile",
            hint="look at it again, and change it then",
        )
    return _patched(snapshot, kind, cluster, before, after)


def drop(snapshot: Snapshot, kind: Kind, cluster: str, name: str) -> Snapshot:
    """The snapshot without the entity."""
    return _patched(snapshot, kind, cluster, find(snapshot, kind, cluster, name), None)


def _patched(
    snapshot: Snapshot, kind: Kind, cluster: str, before: Entity | None, after: Entity | None
) -> Snapshot:
    name = cast("Entity", after or before).name
    owner = "" if kind in OF_APPLIANCE else cluster
    return patch(snapshot, [Change(kind, owner, name, _document(before), _document(after))])


def _document(entity: Entity | None) -> Document | None:
    return None if entity is None else to_document(entity)


def _names(what: str, among: tuple[Any, ...]) -> str:
    """A hint that lists what there is, while that is short enough to read."""
    names = [item.name for item in among]
    if not names:
        return f"there are no {what} yet"
    shown = ", ".join(names[:10])
    return f"{what}: {shown}" + (f" and {len(names) - 10} more" if len(names) > 10 else "")
