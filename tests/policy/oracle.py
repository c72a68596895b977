"""What a plan must come to, said once more without one: from the snapshot, slow and without indexes."""

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingABC
from datetime import datetime

from marchproxy.model.address import HostName, IPAddress
from marchproxy.model.entities import Action, Auth, Mapping, Service
from marchproxy.model.reason import Reason, Verdict
from marchproxy.model.snapshot import Cluster, Snapshot
from marchproxy.policy.evaluate import Query

type Names = MappingABC[str, Sequence[IPAddress]]
type Outcome = tuple[Verdict, Reason, str, frozenset[tuple[IPAddress, int]]]
"""Verdict, reason, qualified mapping, and the addresses and ports where the flow may go."""


def decide(snapshot: Snapshot, names: Names, now: datetime, query: Query) -> Outcome:
    """The verdict on a new flow."""
    candidates = list(_listening(snapshot, now, query))
    if not candidates:
        local = query.is_local()
        outcome = (Verdict.HOST, Reason.PASSED_TO_HOST) if local else (Verdict.DENY, Reason.NO_MAPPING)
        return (*outcome, "", frozenset())
    candidates.sort(
        key=lambda pair: (pair[1].priority, pair[1].action is Action.ALLOW, f"{pair[0].name}/{pair[1].name}")
    )
    for cluster, mapping in candidates:
        if any(_is_source(query.source, reference, cluster, names) for reference in mapping.sources):
            reason, backends = _decision(cluster, mapping, names, query)
            verdict = Verdict.ALLOW if reason is Reason.FORWARDED else Verdict.DENY
            return verdict, reason, f"{cluster.name}/{mapping.name}", backends
    return Verdict.DENY, Reason.NO_MAPPING, "", frozenset()


def _listening(snapshot: Snapshot, now: datetime, query: Query) -> Iterator[tuple[Cluster, Mapping]]:
    """The mappings at the query's own address if there are any, else those at every local address."""
    live = [
        (cluster, mapping)
        for cluster in snapshot.clusters
        for mapping in cluster.mappings
        if mapping.listen is not None
        and mapping.listen.port == query.port
        and (mapping.expires is None or mapping.expires > now)
        and query.transport in {protocol.transport for protocol in mapping.protocols}
    ]
    exact = [pair for pair in live if pair[1].listen and pair[1].listen.address == query.destination]
    everywhere = (None, type(query.destination)(0))
    wildcard = [pair for pair in live if pair[1].listen and pair[1].listen.address in everywhere]
    yield from exact or (wildcard if query.is_local() else [])


def _is_source(source: IPAddress, reference: str, cluster: Cluster, names: Names) -> bool:
    if reference == "all":
        return True
    if reference == "external":
        return not any(_contains(service, source, names) for service in cluster.services)
    return any(_contains(service, source, names) for service in _named(reference, cluster))


def _named(reference: str, cluster: Cluster) -> list[Service]:
    return [
        service
        for service in cluster.services
        if reference in (service.name, f"collection:{service.collection}")
    ]


def _contains(service: Service, source: IPAddress, names: Names) -> bool:
    for address in service.addresses:
        if isinstance(address, HostName):
            if source in names.get(address.name, ()):
                return True
        elif source in address:
            return True
    return False


def _decision(
    cluster: Cluster, mapping: Mapping, names: Names, query: Query
) -> tuple[Reason, frozenset[tuple[IPAddress, int]]]:
    destinations = [service for reference in mapping.destinations for service in _named(reference, cluster)]
    if mapping.host or mapping.path_prefix:
        return Reason.NOT_CARRIED, frozenset()
    if mapping.action is Action.DENY:
        return Reason.DENY_MAPPING, frozenset()
    if mapping.auth_required or any(service.auth is not Auth.NONE for service in destinations):
        return Reason.AUTH_MISSING, frozenset()
    backends = frozenset(
        (address, port)
        for service in destinations
        for address in _addresses(service, names)
        for port in _ports(mapping, service)
        if address.version == query.destination.version
    )
    return Reason.FORWARDED if backends else Reason.NO_BACKEND, backends


def _addresses(service: Service, names: Names) -> Iterator[IPAddress]:
    for address in service.addresses:
        if isinstance(address, HostName):
            yield from names.get(address.name, ())
        elif address.num_addresses == 1:
            yield address.network_address


def _ports(mapping: Mapping, service: Service) -> list[int]:
    allowed = {port for ports in mapping.ports for port in range(ports.first, ports.last + 1)}
    if len(allowed) == 1:
        return list(allowed)
    port = service.port or (mapping.listen.port if mapping.listen else 0)
    return [port] if not allowed or port in allowed else []
