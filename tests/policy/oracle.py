"""What a plan must come to, said once more without one: from the snapshot, slow and without indexes."""

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as MappingABC
from dataclasses import replace
from datetime import datetime
from ipaddress import ip_address

from marchproxy.model.address import HostName, IPAddress
from marchproxy.model.entities import Action, Auth, Mapping, Service
from marchproxy.model.names import qualify
from marchproxy.model.reason import Reason, Verdict
from marchproxy.model.snapshot import Cluster, Snapshot
from marchproxy.policy.checks import BackendKey
from marchproxy.policy.evaluate import Query

type Names = MappingABC[str, Sequence[IPAddress]]
type Outcome = tuple[Verdict, Reason, str, frozenset[tuple[IPAddress, int]]]
"""Verdict, reason, qualified mapping, and the addresses and ports where the flow may go."""
type Candidate = tuple[Cluster, Mapping]
type Target = tuple[Service, IPAddress, int]
"""A backend, and the service it comes from."""

type Taking = Callable[[list[Target]], list[Target]]
"""Those of them that new flows may go to."""

REFUSALS = (Reason.DENY_MAPPING, Reason.AUTH_MISSING, Reason.NOT_CARRIED)
"""What audit is about."""


def decide(
    snapshot: Snapshot,
    names: Names,
    now: datetime,
    query: Query,
    down: frozenset[BackendKey] = frozenset(),
) -> Outcome:
    """The verdict on a new flow."""
    snapshot = _under_audit(snapshot)

    def taking(targets: list[Target]) -> list[Target]:
        return [target for target in targets if _takes(snapshot, target, down)]

    live = [
        (cluster, mapping)
        for cluster in snapshot.clusters
        for mapping in cluster.mappings
        if (mapping.expires is None or mapping.expires > now)
        and query.transport in {protocol.transport for protocol in mapping.protocols}
    ]
    candidates = _listening(live, names, query)
    if not candidates:
        if query.is_local():
            return Verdict.HOST, Reason.PASSED_TO_HOST, "", frozenset()
        return (*_route(snapshot, live, names, query), frozenset())
    candidates += _restricting(live, candidates, names, query)
    candidates.sort(key=_order)
    matching = [
        number
        for number, (cluster, mapping) in enumerate(candidates)
        if any(_is_source(query.source, reference, cluster, names) for reference in mapping.sources)
    ]
    if any(_reads_http(cluster, mapping, names, query) for cluster, mapping in candidates):
        matching = _by_request(candidates, matching, query)
    if matching:
        cluster, mapping = candidates[matching[0]]
        reason = _reason(cluster, mapping, names, query)
        places = taking(_leads_to(cluster, mapping, names, query))
        if reason in REFUSALS and mapping.audit and not places:
            places = _next_way(candidates[matching[0] + 1 :], names, query, taking)
        if reason is Reason.FORWARDED and not places:
            reason = Reason.NO_BACKEND
        passed = Verdict.ALLOW if reason is Reason.FORWARDED else Verdict.AUDIT
        # Where a credential leads is known, but a packet has none.
        verdict = passed if places and (passed is Verdict.ALLOW or mapping.audit) else Verdict.DENY
        return verdict, reason, qualify(cluster.name, mapping.name), _endpoints(places)
    audited = [pair for pair in reversed(candidates) if pair[0].audit]
    places = _next_way(audited, names, query, taking)
    return Verdict.AUDIT if places else Verdict.DENY, Reason.NO_MAPPING, "", _endpoints(places)


def _reads_http(cluster: Cluster, mapping: Mapping, names: Names, query: Query) -> bool:
    if mapping.listen is None or mapping.sni or not _speaks_http(mapping):
        return False
    asks = mapping.tls is not None or _reason(cluster, mapping, names, query) is Reason.AUTH_MISSING
    return bool(mapping.host or mapping.path_prefix or (asks and _leads_to(cluster, mapping, names, query)))


def _speaks_http(mapping: Mapping) -> bool:
    return {protocol.value for protocol in mapping.protocols} <= {"http", "https", "grpc"}


def _by_request(candidates: list[Candidate], matching: list[int], query: Query) -> list[int]:
    """The one candidate that a request takes, of those that are for its source."""

    def path(number: int) -> str:
        mapping = candidates[number][1]
        routed = mapping.listen is not None and not mapping.sni and _speaks_http(mapping)
        return (mapping.path_prefix or "").rstrip("/") if routed else ""

    fitting = [each for each in matching if f"{query.path}/".startswith(f"{path(each)}/") or not path(each)]
    if not fitting:
        return []
    winner = max(fitting, key=lambda number: len(path(number)))
    priority = candidates[winner][1].priority
    bans = [each for each in fitting if candidates[each][1].action is Action.DENY]
    return [next((each for each in bans if candidates[each][1].priority < priority), winner)]


def _takes(snapshot: Snapshot, target: Target, down: frozenset[BackendKey]) -> bool:
    """Whether new flows may go there: it is not drained, and no check that is made finds it down."""
    service, address, port = target
    if str(address) in service.drain:
        return False
    (owner,) = (
        cluster.name for cluster in snapshot.clusters if any(service is each for each in cluster.services)
    )
    key = BackendKey(qualify(owner, service.name), address, 0 if service.health == "icmp" else port)
    return service.health == "none" or key not in down


def _under_audit(snapshot: Snapshot) -> Snapshot:
    """The same with every mapping saying for itself that it is audited."""
    clusters = []
    for cluster in snapshot.clusters:
        audit = cluster.audit or snapshot.settings.audit
        mappings = tuple(replace(mapping, audit=mapping.audit or audit) for mapping in cluster.mappings)
        clusters.append(replace(cluster, audit=audit, mappings=mappings))
    return replace(snapshot, clusters=tuple(clusters))


def _next_way(candidates: list[Candidate], names: Names, query: Query, taking: Taking) -> list[Target]:
    """Where the first of these that allows, and has where to go, leads."""
    for cluster, mapping in candidates:
        if _reason(cluster, mapping, names, query) is Reason.FORWARDED:
            places = taking(_leads_to(cluster, mapping, names, query))
            if places:
                return places
    return []


def _endpoints(targets: list[Target]) -> frozenset[tuple[IPAddress, int]]:
    return frozenset((address, port) for _, address, port in targets)


def _leads_to(cluster: Cluster, mapping: Mapping, names: Names, query: Query) -> list[Target]:
    """Where a listening mapping sends what it matches: its backends, if it, a credential or audit allows."""
    if mapping.listen is None or mapping.action is Action.DENY:
        return []
    reason = _reason(cluster, mapping, names, query)
    shut = reason in REFUSALS and not (reason is Reason.AUTH_MISSING and _has_credentials(cluster, mapping))
    return [] if shut and not mapping.audit else _targets(cluster, mapping, names, query)


def _has_credentials(cluster: Cluster, mapping: Mapping) -> bool:
    ends = (*mapping.sources, *mapping.destinations)
    return any(service.auth is not Auth.NONE for reference in ends for service in _named(reference, cluster))


def _order(pair: Candidate) -> tuple[int, bool, str]:
    cluster, mapping = pair
    return mapping.priority, mapping.action is Action.ALLOW, qualify(cluster.name, mapping.name)


def _route(
    snapshot: Snapshot, live: list[Candidate], names: Names, query: Query
) -> tuple[Verdict, Reason, str]:
    """What becomes of traffic that passes through."""
    for cluster, mapping in sorted(live, key=_order):
        if mapping.listen is not None:
            continue
        towards = _towards(cluster, mapping, names, query)
        if towards and any(_is_source(query.source, each, cluster, names) for each in mapping.sources):
            reason = _own_reason(mapping)
            if reason is Reason.FORWARDED and Auth.TOKEN in towards:
                reason = Reason.AUTH_MISSING
            refused = Verdict.AUDIT if mapping.audit else Verdict.DENY
            verdict = Verdict.ALLOW if reason is Reason.FORWARDED else refused
            return verdict, reason, qualify(cluster.name, mapping.name)
    audited = snapshot.settings.audit or any(
        _contains(service, address, names)
        for cluster in snapshot.clusters
        if cluster.audit
        for service in cluster.services
        for address in (query.source, query.destination)
    )
    return Verdict.AUDIT if audited else Verdict.DENY, Reason.NO_MAPPING, ""


def _towards(cluster: Cluster, mapping: Mapping, names: Names, query: Query) -> set[Auth]:
    """What the destinations want that the query asks for; nothing if it asks for none of the mapping's."""
    if query.transport and mapping.ports and not _has_port(mapping, query.port):
        return set()
    if "all" in mapping.destinations:
        holding = (service for service in cluster.services if _contains(service, query.destination, names))
        return {Auth.NONE, *(service.auth for service in holding)}
    found = set()
    if "external" in mapping.destinations and _is_source(query.destination, "external", cluster, names):
        found.add(Auth.NONE)
    for service in [named for reference in mapping.destinations for named in _named(reference, cluster)]:
        own = bool(mapping.ports) or query.transport is None or service.port in (None, query.port)
        if own and _contains(service, query.destination, names):
            found.add(service.auth)
    return found


def _own_reason(mapping: Mapping) -> Reason:
    unheard = mapping.listen is None or mapping.sni
    if (mapping.host or mapping.path_prefix) and unheard:
        return Reason.NOT_CARRIED
    if mapping.sni and mapping.action is Action.DENY:
        return Reason.NOT_CARRIED
    if mapping.action is Action.DENY:
        return Reason.DENY_MAPPING
    return Reason.AUTH_MISSING if mapping.auth_required else Reason.FORWARDED


def _has_port(mapping: Mapping, port: int) -> bool:
    return any(ports.first <= port <= ports.last for ports in mapping.ports)


def _listening(live: list[Candidate], names: Names, query: Query) -> list[Candidate]:
    """The mappings at the query's own address if there are any, else those at every local address."""
    there = [pair for pair in live if pair[1].listen and query.port in pair[1].listen.ports]
    exact = [pair for pair in there if pair[1].listen and pair[1].listen.address == query.destination]
    if exact or not query.is_local():
        return exact
    everywhere = (None, type(query.destination)(0))
    wildcard = [pair for pair in there if pair[1].listen and pair[1].listen.address in everywhere]
    other_family = replace(
        query, destination=ip_address("::" if query.destination.version == 4 else "0.0.0.0")
    )
    opening = [
        (cluster, mapping)
        for cluster, mapping in wildcard
        if (mapping.listen and mapping.listen.address)
        or _leads_to(cluster, mapping, names, query)
        or not _leads_to(cluster, mapping, names, other_family)
    ]
    return wildcard if opening else []


def _restricting(
    live: list[Candidate], candidates: list[Candidate], names: Names, query: Query
) -> list[Candidate]:
    """Deny mappings that do not listen, and cover a backend that a candidate of their cluster leads to."""
    return [
        (cluster, mapping)
        for cluster, mapping in live
        if mapping.listen is None and mapping.action is Action.DENY
        if any(
            holder is cluster
            and any(
                _covers(mapping, target, cluster) for target in _leads_to(cluster, allowing, names, query)
            )
            for holder, allowing in candidates
        )
    ]


def _covers(mapping: Mapping, target: Target, cluster: Cluster) -> bool:
    service, _, port = target
    named = [named for reference in mapping.destinations for named in _named(reference, cluster)]
    return ("all" in mapping.destinations or service in named) and (
        not mapping.ports or _has_port(mapping, port)
    )


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


def _reason(cluster: Cluster, mapping: Mapping, names: Names, query: Query) -> Reason:
    destinations = [service for reference in mapping.destinations for service in _named(reference, cluster)]
    own = _own_reason(mapping)
    if own is not Reason.FORWARDED:
        return own
    if any(service.auth is not Auth.NONE for service in destinations):
        return Reason.AUTH_MISSING
    return Reason.FORWARDED if _targets(cluster, mapping, names, query) else Reason.NO_BACKEND


def _targets(cluster: Cluster, mapping: Mapping, names: Names, query: Query) -> list[Target]:
    return [
        (service, address, port)
        for reference in mapping.destinations
        for service in _named(reference, cluster)
        for address in _addresses(service, names)
        for port in _ports(mapping, service, query)
        if address.version == query.destination.version
    ]


def _addresses(service: Service, names: Names) -> Iterator[IPAddress]:
    for address in service.addresses:
        if isinstance(address, HostName):
            yield from names.get(address.name, ())
        elif address.num_addresses == 1:
            yield address.network_address


def _ports(mapping: Mapping, service: Service, query: Query) -> list[int]:
    allowed = {port for ports in mapping.ports for port in range(ports.first, ports.last + 1)}
    if len(allowed) == 1:
        return list(allowed)
    port = service.port or (query.port if mapping.listen else 0)
    return [port] if not allowed or port in allowed else []
