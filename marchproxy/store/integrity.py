"""What must hold in a snapshot as a whole before it becomes a revision. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from marchproxy.model.change import OF_APPLIANCE, OF_CLUSTER, held
from marchproxy.model.documents import Entity
from marchproxy.model.errors import Conflict, NotFound
from marchproxy.model.names import ALL, COLLECTION_PREFIX, DEFAULT_CLUSTER, EXTERNAL, qualify
from marchproxy.model.snapshot import Cluster, Snapshot

_SHOWN = 5


def check_names(snapshot: Snapshot) -> None:
    """Raise `Conflict` where two things of a kind have one name: one would silently replace the other."""
    _check_unique("cluster", snapshot.clusters)
    for kind in OF_APPLIANCE:
        _check_unique(kind.label, held(snapshot, kind))
    for cluster in snapshot.clusters:
        for kind in OF_CLUSTER:
            _check_unique(kind.label, held(cluster, kind))


def check_references(old: Snapshot, new: Snapshot) -> None:
    """Raise unless the references of each mapping exist in its cluster, and the services of each limit.

    `Conflict` names who still uses what `old` had and `new` has not; `NotFound` names what never was.
    """
    if new.cluster(DEFAULT_CLUSTER) is None:
        raise Conflict(f"cluster {DEFAULT_CLUSTER!r} cannot be removed")
    for cluster in new.clusters:
        users = [(mapping.name, set(mapping.references)) for mapping in cluster.mappings]
        before = old.cluster(cluster.name)
        place = f" in cluster {cluster.name!r}"
        _check_users(
            "mapping", place, users, set(_offered(cluster)), set(_offered(before)) if before else set()
        )
    limits = [(limit.name, set(limit.services)) for limit in new.limits]
    _check_users("limit", "", limits, set(_qualified(new)), set(_qualified(old)))


def _check_users(
    kind: str, place: str, users: Iterable[tuple[str, set[str]]], known: set[str], before: set[str]
) -> None:
    """Raise unless all that the users refer to is known. `before`: what was; `place`: where the users are."""
    missing: dict[str, list[str]] = defaultdict(list)
    for user, references in users:
        for reference in references - known:
            missing[reference].append(user)
    if missing:
        raise _dangling(kind, place, missing, before)


def _qualified(snapshot: Snapshot) -> Iterator[str]:
    """Whatever a limit may refer to."""
    for cluster in snapshot.clusters:
        for service in cluster.services:
            yield qualify(cluster.name, service.name)


def _offered(cluster: Cluster) -> Iterator[str]:
    """Whatever a mapping of the cluster may refer to."""
    yield from (ALL, EXTERNAL)
    for service in cluster.services:
        yield service.name
        if service.collection is not None:
            yield COLLECTION_PREFIX + service.collection


def _dangling(user: str, place: str, users: dict[str, list[str]], gone: set[str]) -> Conflict | NotFound:
    reference = min(users.keys() & gone or users)
    kind = "collection" if reference.startswith(COLLECTION_PREFIX) else "service"
    name = reference.removeprefix(COLLECTION_PREFIX)
    names = _listed(user, sorted(users[reference]))
    if reference in gone:
        what = "the last service of " if kind == "collection" else ""
        hint = f"change or remove what uses it first; this would remove {what}{kind} {name!r}"
        return Conflict(f"{kind} {name!r} is in use by {names}", hint=hint)
    return NotFound(kind, name, hint=f"{names}{place} refers to it")


def _listed(kind: str, names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{kind}{'s' if len(names) > 1 else ''} {shown}{more}"


def _check_unique(kind: str, items: Iterable[Cluster | Entity]) -> None:
    for name, count in Counter(item.name for item in items).items():
        if count > 1:
            raise Conflict(f"{kind} {name!r} already exists")
