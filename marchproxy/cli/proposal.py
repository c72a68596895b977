"""What a file asks for: a function from the present snapshot to the wanted one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from marchproxy.cli import fleet
from marchproxy.cli.errors import InvalidFile, WrongUsage
from marchproxy.cli.intent import cluster_of
from marchproxy.model.documents import Document
from marchproxy.model.errors import InvalidValue
from marchproxy.model.names import DEFAULT_CLUSTER
from marchproxy.model.snapshot import FORMAT, Cluster, Snapshot, read_snapshot

_SHORT = frozenset({"services", "mappings", "interfaces"})


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
    if fleet.is_fleet(document):
        wanted = cluster or DEFAULT_CLUSTER
        return Proposal(lambda snapshot: _located(name, lambda: _import(snapshot, document, wanted)), False)
    whole = "format" in document or "clusters" in document
    if whole and cluster is not None:
        raise WrongUsage(f"{name} names its clusters itself", hint="leave out --cluster")
    read = _located(name, lambda: _read(document, cluster or DEFAULT_CLUSTER, whole))
    interfaces = "interfaces" in document
    return Proposal(lambda snapshot: _replace(snapshot, read, interfaces, whole), True)


def _read(document: Document, cluster: str, whole: bool) -> Snapshot:
    if whole:
        return read_snapshot(document)
    unknown = set(document) - _SHORT
    if unknown:
        raise InvalidValue(
            "field", min(unknown), f"services, mappings, interfaces, or format: {FORMAT} and clusters"
        )
    # An empty key of YAML is null: `mappings:` with nothing below it.
    parts = {part: [] if document.get(part) is None else document[part] for part in _SHORT}
    return read_snapshot(
        {
            "format": FORMAT,
            "interfaces": parts["interfaces"],
            "clusters": [{"name": cluster, "services": parts["services"], "mappings": parts["mappings"]}],
        }
    )


def _replace(snapshot: Snapshot, wanted: Snapshot, interfaces: bool, whole: bool) -> Snapshot:
    """The clusters of `wanted` in place of those of their name; only a whole file may bring new ones."""
    clusters = {cluster.name: cluster for cluster in snapshot.clusters}
    for cluster in wanted.clusters:
        if not whole:
            cluster_of(snapshot, cluster.name)
        clusters[cluster.name] = cluster
    return Snapshot(
        tuple(clusters[name] for name in sorted(clusters)),
        wanted.interfaces if interfaces else snapshot.interfaces,
    )


def _import(snapshot: Snapshot, document: Document, name: str) -> Snapshot:
    held = cluster_of(snapshot, name)
    services = _by_name(held.services)
    mappings = _by_name(held.mappings)
    services |= _by_name(fleet.import_services(document, services))
    mappings |= _by_name(fleet.import_mappings(document, mappings))
    merged = Cluster(name, _ordered(services), _ordered(mappings))
    kept = [cluster for cluster in snapshot.clusters if cluster.name != name]
    return Snapshot(tuple(sorted((*kept, merged), key=lambda cluster: cluster.name)), snapshot.interfaces)


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
