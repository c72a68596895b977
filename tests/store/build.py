"""Short words for what store tests say again and again."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from marchproxy.model.change import OF_CLUSTER, Change, Kind
from marchproxy.model.documents import Document, read_mapping, read_service
from marchproxy.model.entities import Mapping, Service
from marchproxy.model.names import DEFAULT_CLUSTER
from marchproxy.model.snapshot import Snapshot


def service(name: str, address: str = "10.0.0.1", **fields: object) -> Document:
    """The document of a service."""
    return {"name": name, "addresses": [address], **fields}


def mapping(name: str, source: str, destination: str, **fields: object) -> Document:
    """The document of a TCP mapping between two references."""
    return {"name": name, "sources": [source], "destinations": [destination], "protocols": ["tcp"], **fields}


def add(kind: Kind, document: Document, cluster: str = DEFAULT_CLUSTER) -> Change:
    """What adds this."""
    return Change(kind, cluster if kind in OF_CLUSTER else "", document["name"], None, document)


def remove(kind: Kind, document: Document, cluster: str = DEFAULT_CLUSTER) -> Change:
    """What removes this."""
    return add(kind, document, cluster).reversed()


def changed(before: Document, **fields: object) -> Change:
    """What changes fields of a service in the default cluster."""
    return Change(Kind.SERVICE, DEFAULT_CLUSTER, before["name"], before, before | fields)


def holding(
    services: Iterable[Document], mappings: Iterable[Document] = ()
) -> Callable[[Snapshot], Snapshot]:
    """A `build` for `Store.replace`: the default cluster holds exactly these."""

    def build(snapshot: Snapshot) -> Snapshot:
        held: tuple[Service, ...] = tuple(read_service(document) for document in services)
        rules: tuple[Mapping, ...] = tuple(read_mapping(document) for document in mappings)
        clusters = tuple(
            replace(cluster, services=held, mappings=rules) if cluster.name == DEFAULT_CLUSTER else cluster
            for cluster in snapshot.clusters
        )
        return replace(snapshot, clusters=clusters)

    return build


def becoming(wanted: Snapshot) -> Callable[[Snapshot], Snapshot]:
    """A `build` for `Store.replace`: this, whatever was there."""
    return lambda snapshot: wanted


def appending(document: Document) -> Callable[[Snapshot], Snapshot]:
    """A `build` for `Store.replace`: one more service in the default cluster."""

    def build(snapshot: Snapshot) -> Snapshot:
        clusters = tuple(
            replace(cluster, services=(*cluster.services, read_service(document)))
            if cluster.name == DEFAULT_CLUSTER
            else cluster
            for cluster in snapshot.clusters
        )
        return replace(snapshot, clusters=clusters)

    return build
