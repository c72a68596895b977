"""Everything an operator meant, at one moment.

A snapshot is immutable. Its canonical JSON (sorted keys, no blanks, UTF-8, one trailing newline) is what
`export` prints; the SHA-256 of exactly these bytes names it. What came after the first version is left out
while there is none of it, so that hashes stay what they were.
"""

import hashlib
import json
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from marchproxy.model.appliance import (
    DEFAULT_SETTINGS,
    ApplianceListener,
    Block,
    BlockList,
    Limit,
    Settings,
)
from marchproxy.model.documents import Document, Entity, read_entity, to_document
from marchproxy.model.entities import ClusterFields, ClusterHead, Interface, Mapping, Service
from marchproxy.model.errors import InvalidValue
from marchproxy.model.names import DEFAULT_CLUSTER

FORMAT = "marchproxy/1"

OF_CLUSTER: dict[str, type[Entity]] = {"services": Service, "mappings": Mapping}
"""The collections of a cluster."""
OF_APPLIANCE: dict[str, type[Entity]] = {
    "interfaces": Interface,
    "blocks": Block,
    "block_lists": BlockList,
    "limits": Limit,
    "listeners": ApplianceListener,
}
"""The collections that belong to the appliance and to no cluster."""
_ALWAYS = frozenset({*OF_CLUSTER, "interfaces"})
"""Collections that a document has even where they are empty, as the first version wrote them."""


@dataclass(frozen=True, slots=True)
class Cluster(ClusterFields):
    """An isolated set of services and mappings, each sorted by name."""

    name: str
    services: tuple[Service, ...] = ()
    mappings: tuple[Mapping, ...] = ()

    @classmethod
    def of(cls, head: ClusterHead, **contents: Any) -> "Cluster":
        """A cluster with these fields of its own; `contents` are services and mappings."""
        return cls(**_own(head), **contents)

    @property
    def head(self) -> ClusterHead:
        """The cluster without what it holds."""
        return ClusterHead(**_own(self))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Clusters, and what belongs to the appliance; everything sorted by name."""

    clusters: tuple[Cluster, ...] = (Cluster(DEFAULT_CLUSTER),)
    interfaces: tuple[Interface, ...] = ()
    blocks: tuple[Block, ...] = ()
    block_lists: tuple[BlockList, ...] = ()
    limits: tuple[Limit, ...] = ()
    listeners: tuple[ApplianceListener, ...] = ()
    settings: Settings = DEFAULT_SETTINGS

    def document(self) -> Document:
        """The snapshot as JSON values."""
        clusters = [to_document(cluster.head) | _written(cluster, OF_CLUSTER) for cluster in self.clusters]
        document = {"format": FORMAT, **_written(self, OF_APPLIANCE), "clusters": clusters}
        if self.settings != DEFAULT_SETTINGS:
            document["settings"] = to_document(self.settings)
        return document

    def canonical(self) -> bytes:
        """The canonical JSON."""
        text = json.dumps(self.document(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode() + b"\n"

    def sha256(self) -> str:
        """The snapshot's name: 64 hexadecimal digits."""
        return hashlib.sha256(self.canonical()).hexdigest()

    def cluster(self, name: str) -> Cluster | None:
        """The cluster of that name."""
        return next((cluster for cluster in self.clusters if cluster.name == name), None)


def read_snapshot(document: object) -> Snapshot:
    """Read what `Snapshot.document` wrote, in any order; names are unique within their kind and cluster."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else document
        raise InvalidValue("format", found, FORMAT)
    _refuse_unknown(document, ("format", "clusters", *OF_APPLIANCE, "settings"))
    clusters = [_read_cluster(item) for item in _list(document, "clusters")]
    return Snapshot(
        _by_name(clusters, "clusters"),
        settings=read_entity(Settings, document.get("settings", {})),
        **_read(document, OF_APPLIANCE),
    )


def _read_cluster(document: object) -> Cluster:
    if not isinstance(document, dict) or not isinstance(document.get("name"), str):
        raise InvalidValue("cluster", document, "an object with name, services and mappings")
    own = {key: value for key, value in document.items() if key not in OF_CLUSTER}
    head = read_entity(ClusterHead, own)
    return Cluster.of(head, **_read(document, OF_CLUSTER))


def _own(cluster: Cluster | ClusterHead) -> dict[str, Any]:
    return {field.name: getattr(cluster, field.name) for field in fields(ClusterHead)}


def _written(holder: Snapshot | Cluster, collections: MappingABC[str, type[Entity]]) -> Document:
    held = {field: getattr(holder, field) for field in collections}
    return {
        field: [to_document(entity) for entity in entities]
        for field, entities in held.items()
        if entities or field in _ALWAYS
    }


def _read(document: Document, collections: MappingABC[str, type[Entity]]) -> dict[str, Any]:
    return {
        field: _by_name([read_entity(kind, item) for item in _list(document, field)], field)
        for field, kind in collections.items()
    }


def _refuse_unknown(document: Document, known: tuple[str, ...]) -> None:
    unknown = set(document) - set(known)
    if unknown:
        raise InvalidValue("field", min(map(str, unknown)), "one of " + ", ".join(known))


def _list(document: Document, field: str) -> list[Any]:
    value = document.get(field, [])
    if not isinstance(value, list):
        raise InvalidValue(field, value, "a list")
    return value


def _by_name[T: (Cluster, Entity)](items: list[T], field: str) -> tuple[T, ...]:
    ordered = sorted(items, key=lambda item: item.name)
    for first, second in pairwise(ordered):
        if first.name == second.name:
            raise InvalidValue("name", first.name, f"a name that no other {_SINGULAR[field]} has")
    return tuple(ordered)


_SINGULAR = {
    field: field.removesuffix("s").replace("_", " ") for field in (*OF_APPLIANCE, *OF_CLUSTER, "clusters")
}
