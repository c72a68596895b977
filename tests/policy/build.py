"""Snapshots in few words, by way of the same readers that files go through."""

from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from marchproxy.model.appliance import Limit
from marchproxy.model.documents import read_interface, read_mapping, read_service
from marchproxy.model.entities import Mapping, Service
from marchproxy.model.protocol import Transport
from marchproxy.model.snapshot import Cluster, Snapshot
from marchproxy.policy.compile import Compiled, compile_plan
from marchproxy.policy.evaluate import Query
from marchproxy.policy.plan import Finding, Listener, Plan

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INSIDE = read_interface({"name": "eth0", "role": "inside"})
OUTSIDE = read_interface({"name": "eth1", "role": "outside"})
OWN = frozenset({ip_address("192.0.2.1"), ip_address("192.0.2.2"), ip_address("2001:db8::1")})
"""The appliance's own addresses."""


def service(name: str, *addresses: str, **fields: Any) -> Service:
    """A service."""
    return read_service({"name": name, "addresses": list(addresses), **fields})


def mapping(
    name: str,
    sources: str,
    destinations: str,
    listen: str | None = None,
    protocols: str = "tcp",
    **fields: Any,
) -> Mapping:
    """A mapping; references and protocols are separated by commas."""
    lists = {"sources": sources, "destinations": destinations, "protocols": protocols}
    document = {"name": name, "listen": listen, **fields}
    return read_mapping(document | {field: text.split(",") for field, text in lists.items()})


def cluster(*entities: Service | Mapping, name: str = "default") -> Cluster:
    """A cluster of services and mappings in any order."""
    services = sorted((item for item in entities if isinstance(item, Service)), key=lambda item: item.name)
    mappings = sorted((item for item in entities if isinstance(item, Mapping)), key=lambda item: item.name)
    return Cluster(name, tuple(services), tuple(mappings))


def snapshot(*entities: Service | Mapping | Cluster | Limit) -> Snapshot:
    """A snapshot with two interfaces; services and mappings go to cluster `default`."""
    clusters = [item for item in entities if isinstance(item, Cluster)]
    loose = [item for item in entities if isinstance(item, Service | Mapping)]
    limits = sorted((item for item in entities if isinstance(item, Limit)), key=lambda item: item.name)
    if loose:
        clusters.append(cluster(*loose))
    return Snapshot(
        tuple(sorted(clusters, key=lambda item: item.name)), (INSIDE, OUTSIDE), limits=tuple(limits)
    )


def compiled(*entities: Service | Mapping | Cluster | Limit, **options: Any) -> Compiled:
    """The snapshot of these, compiled."""
    return compile_plan(snapshot(*entities), **{"now": NOW, **options})


def plan(*entities: Service | Mapping | Cluster | Limit, **options: Any) -> Plan:
    """The plan for the snapshot of these."""
    return compiled(*entities, **options).plan


def listener(plan: Plan, text: str) -> Listener:
    """The plan's listener that is written so, such as `192.0.2.1:80/tcp`."""
    found = {str(listener): listener for listener in plan.listeners}
    return found[text]


def query(source: str, destination: str, port: int = 80, transport: Transport = Transport.TCP) -> Query:
    """A new flow that arrives at the appliance whose addresses are `OWN`."""
    return Query(ip_address(source), ip_address(destination), port, transport, OWN)


def texts(findings: Iterable[Finding]) -> list[str]:
    """Findings as an operator reads them, without hints."""
    return [f"{finding.severity} {finding.subject}: {finding.message}" for finding in findings]
