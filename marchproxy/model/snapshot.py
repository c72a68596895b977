"""Everything an operator meant, at one moment.

A snapshot is immutable. Its canonical JSON (sorted keys, no blanks, UTF-8, one trailing newline) is what
`export` prints; the SHA-256 of exactly these bytes names it.
"""

import hashlib
import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from marchproxy.model.documents import Document, read_interface, read_mapping, read_service, to_document
from marchproxy.model.entities import Interface, Mapping, Service
from marchproxy.model.errors import InvalidValue
from marchproxy.model.names import DEFAULT_CLUSTER, parse_name

FORMAT = "marchproxy/1"


@dataclass(frozen=True, slots=True)
class Cluster:
    """An isolated set of services and mappings, each sorted by name."""

    name: str
    services: tuple[Service, ...] = ()
    mappings: tuple[Mapping, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Clusters and interfaces, each sorted by name. Interfaces belong to the appliance, not to a cluster."""

    clusters: tuple[Cluster, ...] = (Cluster(DEFAULT_CLUSTER),)
    interfaces: tuple[Interface, ...] = ()

    def document(self) -> Document:
        """The snapshot as JSON values."""
        return {
            "format": FORMAT,
            "interfaces": [to_document(interface) for interface in self.interfaces],
            "clusters": [
                {
                    "name": cluster.name,
                    "services": [to_document(service) for service in cluster.services],
                    "mappings": [to_document(mapping) for mapping in cluster.mappings],
                }
                for cluster in self.clusters
            ],
        }

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
    unknown = set(document) - {"format", "interfaces", "clusters"}
    if unknown:
        raise InvalidValue("field", min(map(str, unknown)), "format, interfaces or clusters")
    interfaces = [read_interface(item) for item in _list(document, "interfaces")]
    clusters = [_read_cluster(item) for item in _list(document, "clusters")]
    return Snapshot(_by_name(clusters, "cluster"), _by_name(interfaces, "interface"))


def _read_cluster(document: object) -> Cluster:
    if not isinstance(document, dict) or not isinstance(document.get("name"), str):
        raise InvalidValue("cluster", document, "an object with name, services and mappings")
    unknown = set(document) - {"name", "services", "mappings"}
    if unknown:
        where = f'cluster "{document["name"]}"'
        raise InvalidValue("field", min(map(str, unknown)), "name, services or mappings", where=where)
    services = [read_service(item) for item in _list(document, "services")]
    mappings = [read_mapping(item) for item in _list(document, "mappings")]
    name = parse_name(document["name"])
    return Cluster(name, _by_name(services, "service"), _by_name(mappings, "mapping"))


def _list(document: Document, field: str) -> list[Any]:
    value = document.get(field, [])
    if not isinstance(value, list):
        raise InvalidValue(field, value, "a list")
    return value


def _by_name[T: (Cluster, Interface, Service, Mapping)](items: list[T], kind: str) -> tuple[T, ...]:
    ordered = sorted(items, key=lambda item: item.name)
    for first, second in pairwise(ordered):
        if first.name == second.name:
            raise InvalidValue("name", first.name, f"a name that no other {kind} has")
    return tuple(ordered)
