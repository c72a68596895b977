"""What a file asks for: a function from the present snapshot to the wanted one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from marchproxy.cli import fleet
from marchproxy.cli.errors import InvalidFile, WrongUsage
from marchproxy.client.edits import cluster_of
from marchproxy.model.documents import Document
from marchproxy.model.errors import InvalidValue
from marchproxy.model.names import DEFAULT_CLUSTER
from marchproxy.model.snapshot import FORMAT, OF_APPLIANCE, OF_CLUSTER, Cluster, Snapshot, read_snapshot

_APPLIANCE = (*OF_APPLIANCE, "settings")
"""Keys of a file for what belongs to the appliance and to no cluster."""

MOST = 50_000
"""Services, and mappings, that a file may have."""
_MASSES = "one service may have many addresses and prefixes; block lists take a million"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A file, read and understood."""

    build: Callable[[Snapshot], Snapshot]
    """From what is to what the file wants; raises `InvalidValue` or `NotFound`."""
    replaces: bool
    """Whether what the file leaves out is removed: true for our own format, false for a fleet import."""


def propose(document: Document, name: str, cluster: str | None) -> Proposal:
    """Understand the document of the file `name`.

    `cluster` is the one that a file without clusters is for, the default one if None; a file that names its
    clusters takes none.
    """
    _refuse_masses(document, name)
    if fleet.is_fleet(document):
        wanted = cluster or DEFAULT_CLUSTER
        return Proposal(lambda snapshot: _located(name, lambda: _import(snapshot, document, wanted)), False)
    if "merge" in document:
        return _merging(document, name, cluster or DEFAULT_CLUSTER)
    whole = "format" in document or "clusters" in document
    if whole and cluster is not None:
        raise WrongUsage(f"{name} names its clusters itself", hint="leave out --cluster")
    if not whole and cluster is not None and OF_CLUSTER.keys().isdisjoint(document):
        raise WrongUsage(f"{name} has neither services nor mappings", hint="leave out --cluster")
    read = _located(name, lambda: _read(document, cluster or DEFAULT_CLUSTER, whole))
    spoken = [field for field in _APPLIANCE if field in document]
    if whole and "interfaces" in document:
        # What export prints of the whole appliance; it leaves out what there is none of.
        spoken = list(_APPLIANCE)
    return Proposal(lambda snapshot: _replace(snapshot, read, spoken, whole), True)


def _refuse_masses(document: Document, name: str) -> None:
    """Raise `InvalidFile` for more entities than an appliance can carry, before hours are spent on them."""
    clusters = document.get("clusters")
    holders = [document, *(clusters if isinstance(clusters, list) else ())]
    for key in OF_CLUSTER:
        lists = (holder.get(key) for holder in holders if isinstance(holder, dict))
        count = sum(len(held) for held in lists if isinstance(held, list))
        if count > MOST:
            raise InvalidFile(f"{name} has {count} {key}: an appliance carries {MOST}", hint=_MASSES)


def _read(document: Document, cluster: str, whole: bool) -> Snapshot:
    if whole:
        wanted = read_snapshot(document)
        if not wanted.clusters and (set(document) == {"format"} or "clusters" in document):
            expected = "the clusters to make equal to the file: those that it leaves out stay as they are"
            raise InvalidValue("clusters", [], expected)
        return wanted
    if not document:
        raise InvalidValue("file", document, "something to make the appliance equal to, such as services")
    unknown = set(document) - {*OF_CLUSTER, *_APPLIANCE}
    if unknown:
        known = ", ".join((*OF_CLUSTER, *_APPLIANCE))
        raise InvalidValue("field", min(unknown), f"{known}, or format: {FORMAT} and clusters")
    # An empty key of YAML is null: `mappings:` with nothing below it.
    given = {key: value for key, value in document.items() if value is not None}
    held = {key: given[key] for key in OF_CLUSTER if key in given}
    own = {key: given[key] for key in _APPLIANCE if key in given}
    clusters = [{"name": cluster, **held}] if any(key in document for key in OF_CLUSTER) else []
    return read_snapshot({"format": FORMAT, "clusters": clusters, **own})


def _replace(snapshot: Snapshot, wanted: Snapshot, spoken: Iterable[str], whole: bool) -> Snapshot:
    """The clusters of `wanted` in place of those of their name; only a whole file may bring new ones.

    Of what belongs to the appliance, only the fields in `spoken` are the file's.
    """
    clusters = {cluster.name: cluster for cluster in snapshot.clusters}
    for cluster in wanted.clusters:
        # A file of services and mappings has no word for what else a cluster is.
        audit = cluster.audit if whole else cluster_of(snapshot, cluster.name).audit
        clusters[cluster.name] = replace(cluster, audit=audit)
    fields: dict[str, Any] = {field: getattr(wanted, field) for field in spoken}
    return replace(snapshot, clusters=tuple(clusters[name] for name in sorted(clusters)), **fields)


def _merging(document: Document, name: str, cluster: str) -> Proposal:
    """A file with `merge: true` adds to a cluster and updates it: what `learn propose` writes."""
    if document["merge"] is not True:
        raise InvalidValue("merge", document["merge"], "true, or no such key").at(name)
    added = {key: value for key, value in document.items() if key != "merge"}
    if not added.keys() <= OF_CLUSTER.keys():
        unknown = min(added.keys() - OF_CLUSTER.keys())
        raise InvalidValue("field", unknown, f"only {' and '.join(OF_CLUSTER)} beside merge").at(name)
    wanted = _located(name, lambda: _read(added, cluster, False)).clusters[0] if added else None

    def build(snapshot: Snapshot) -> Snapshot:
        held = cluster_of(snapshot, cluster)
        if wanted is None:
            return snapshot
        services = _by_name(held.services) | _by_name(wanted.services)
        mappings = _by_name(held.mappings) | _by_name(wanted.mappings)
        return _with(snapshot, replace(held, services=_ordered(services), mappings=_ordered(mappings)))

    return Proposal(build, False)


def _with(snapshot: Snapshot, cluster: Cluster) -> Snapshot:
    """The snapshot with `cluster` in place of the one of its name."""
    kept = [held for held in snapshot.clusters if held.name != cluster.name]
    return replace(snapshot, clusters=tuple(sorted((*kept, cluster), key=lambda each: each.name)))


def _import(snapshot: Snapshot, document: Document, name: str) -> Snapshot:
    held = cluster_of(snapshot, name)
    services = _by_name(held.services)
    mappings = _by_name(held.mappings)
    services |= _by_name(fleet.import_services(document, services))
    mappings |= _by_name(fleet.import_mappings(document, mappings))
    return _with(snapshot, replace(held, services=_ordered(services), mappings=_ordered(mappings)))


def _by_name(entities: Iterable[Any]) -> dict[str, Any]:
    return {entity.name: entity for entity in entities}


def _ordered(entities: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entities[name] for name in sorted(entities))


def _located[T](name: str, read: Callable[[], T]) -> T:
    """Say in which file an error is."""
    try:
        return read()
    except InvalidValue as error:
        raise error.at(name) from None
    except RecursionError:
        raise InvalidFile(f"{name}: nested too deeply") from None
