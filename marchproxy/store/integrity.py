"""What must hold in a snapshot as a whole before it becomes a revision. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from marchproxy.model.entities import Interface, Mapping, Service
from marchproxy.model.errors import Conflict, NotFound
from marchproxy.model.names import ALL, COLLECTION_PREFIX, DEFAULT_CLUSTER, EXTERNAL
from marchproxy.model.snapshot import Cluster, Snapshot

_SHOWN = 5


def check_names(snapshot: Snapshot) -> None:
    """Raise `Conflict` where two things of a kind have one name: one would silently replace the other."""
    _check_unique("cluster", snapshot.clusters)
    _check_unique("interface", snapshot.interfaces)
    for cluster in snapshot.clusters:
        _check_unique("service", cluster.services)
        _check_unique("mapping", cluster.mappings)


def check_references(old: Snapshot, new: Snapshot) -> None:
    """Raise unless each mapping's references exist in its cluster.

    `Conflict` names who still uses what `old` had and `new` has not; `NotFound` names what never was.
    """
    if new.cluster(DEFAULT_CLUSTER) is None:
        raise Conflict(f"cluster {DEFAULT_CLUSTER!r} cannot be removed")
    for cluster in new.clusters:
        known = set(_offered(cluster))
        users: dict[str, list[str]] = defaultdict(list)
        for mapping in cluster.mappings:
            for reference in {*mapping.sources, *mapping.destinations} - known:
                users[reference].append(mapping.name)
        if users:
            before = old.cluster(cluster.name)
            raise _dangling(cluster.name, users, set(_offered(before)) if before else set())


def _offered(cluster: Cluster) -> Iterator[str]:
    """Whatever a mapping of the cluster may refer to."""
    yield from (ALL, EXTERNAL)
    for service in cluster.services:
        yield service.name
        if service.collection is not None:
            yield COLLECTION_PREFIX + service.collection


def _dangling(cluster: str, users: dict[str, list[str]], gone: set[str]) -> Conflict | NotFound:
    reference = min(users.keys() & gone or users)
    kind = "collection" if reference.startswith(COLLECTION_PREFIX) else "service"
    name = reference.removeprefix(COLLECTION_PREFIX)
    names = _listed(sorted(users[reference]))
    if reference in gone:
        what = "the last service of " if kind == "collection" else ""
        hint = f"change or remove what uses it first; this would remove {what}{kind} {name!r}"
        return Conflict(f"{kind} {name!r} is in use by {names}", hint=hint)
    return NotFound(kind, name, hint=f"{names} in cluster {cluster!r} refers to it")


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"mapping{'s' if len(names) > 1 else ''} {shown}{more}"


def _check_unique(kind: str, items: Iterable[Cluster | Interface | Service | Mapping]) -> None:
    for name, count in Counter(item.name for item in items).items():
        if count > 1:
            raise Conflict(f"{kind} {name!r} already exists")
