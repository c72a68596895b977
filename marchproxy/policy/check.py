"""What is wrong or useless in a snapshot, beyond what stops a plan: `marchproxy check`."""

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingABC
from collections.abc import Set as AbstractSet
from dataclasses import replace

from marchproxy.model.address import HostName, IPAddress
from marchproxy.model.entities import Action, Mapping, Service
from marchproxy.model.names import ALL, COLLECTION_PREFIX, EXTERNAL, cluster_of, qualify
from marchproxy.model.snapshot import Cluster, Snapshot
from marchproxy.policy.clientcas import several_authorities
from marchproxy.policy.compile import Compiled
from marchproxy.policy.limits import idle_limits
from marchproxy.policy.overlaps import overlaps
from marchproxy.policy.plan import WILDCARDS, Finding, Listener, Plan, Severity, listener_key
from marchproxy.policy.shadows import shadowed
from marchproxy.policy.spans import spanned, spans
from marchproxy.policy.wording import listed


def check(
    snapshot: Snapshot, compiled: Compiled, names: MappingABC[str, Sequence[IPAddress]] | None = None
) -> tuple[Finding, ...]:
    """The findings of the plan, then what contradicts itself, never matches, is hidden, shared or unused.

    `compiled` must be of this snapshot. `names`: what host names resolve to; None where nobody has asked.
    Takes time in proportion to all source lists together.
    """
    mappings = [(cluster, mapping) for cluster in snapshot.clusters for mapping in cluster.mappings]
    restricting = {qualify(cluster.name, mapping.name) for cluster, mapping in mappings if not mapping.listen}
    contradicted = {finding.subject: finding for finding in _contradictions(snapshot, compiled)}
    unsettled = {
        qualify(cluster.name, service.name)
        for cluster in snapshot.clusters
        for service in cluster.services
        if _hosts(service)
    }
    return (
        *compiled.plan.findings,
        *expired(snapshot, compiled),
        *contradicted.values(),
        *(
            finding
            for finding in shadowed(compiled.plan, restricting, unsettled)
            if finding.subject not in contradicted
        ),
        *_hidden(compiled.plan, restricting),
        *overlaps(compiled.plan),
        *several_authorities(compiled.plan),
        *(_unresolved(snapshot, compiled.plan.names - names.keys()) if names is not None else ()),
        *(finding for cluster in snapshot.clusters for finding in _unused(cluster)),
        *idle_limits(snapshot),
    )


def _hosts(service: Service) -> list[str]:
    return [address.name for address in service.addresses if isinstance(address, HostName)]


def _contradictions(snapshot: Snapshot, compiled: Compiled) -> Iterator[Finding]:
    """Mappings that allow what another of the same priority denies in the very same words."""
    for cluster in snapshot.clusters:
        live = [each for each in cluster.mappings if each.expires is None or each.expires > compiled.at]
        denying = {_words(mapping): mapping for mapping in live if mapping.action is Action.DENY}
        for mapping in live if denying else ():
            other = denying.get(_words(mapping))
            if other is not None and mapping.action is Action.ALLOW:
                name = qualify(cluster.name, other.name)
                yield Finding(
                    Severity.WARNING,
                    f"mapping {qualify(cluster.name, mapping.name)}",
                    f"contradicts mapping {name}, which denies the same at the same priority and comes first",
                    "remove one of them, or give it another priority",
                )


def _words(mapping: Mapping) -> tuple[object, ...]:
    """What a mapping is about and when its turn comes, whatever it then does."""
    return (
        mapping.priority,
        mapping.sources,
        mapping.destinations,
        mapping.protocols,
        mapping.ports,
        mapping.listen,
        mapping.host,
        mapping.path_prefix,
        mapping.path,
        mapping.methods,
        mapping.headers,
        mapping.query,
    )


def _unresolved(snapshot: Snapshot, missing: AbstractSet[str]) -> Iterator[Finding]:
    for cluster in snapshot.clusters:
        for service in cluster.services:
            # What a wildcard stands for is learnt from clients' questions: there may have been none yet.
            hosts = [host for host in _hosts(service) if host in missing and not host.startswith("*.")]
            if hosts:
                message = f"{listed(hosts)} {'resolves' if len(hosts) == 1 else 'resolve'} to nothing"
                yield Finding(Severity.WARNING, f"service {qualify(cluster.name, service.name)}", message)


def expired(snapshot: Snapshot, compiled: Compiled) -> Iterator[Finding]:
    """Mappings that have expired."""
    for cluster in snapshot.clusters:
        for mapping in cluster.mappings:
            if mapping.expires is not None and mapping.expires <= compiled.at:
                message = f"expired at {mapping.expires:%Y-%m-%dT%H:%M:%SZ} and matches nothing"
                yield Finding(
                    Severity.WARNING,
                    f"mapping {qualify(cluster.name, mapping.name)}",
                    message,
                    "remove or renew it",
                )


def _hidden(plan: Plan, restricting: AbstractSet[str]) -> Iterator[Finding]:
    """Listeners at one address that keep those of the wildcard from applying, where that may surprise.

    `restricting` mappings apply to both wherever they have something to deny.
    """
    for listener, ports, what in spans(_hiding(plan, restricting)):
        every = replace(listener, address=WILDCARDS[listener.address.version])
        message = f"has its own mappings: those of {spanned(every, ports)} do not apply to it, such as {what}"
        subject = f"listener {spanned(listener, ports)}"
        yield Finding(Severity.WARNING, subject, message, "listen on the same address in both")


def _hiding(plan: Plan, restricting: AbstractSet[str]) -> Iterator[tuple[Listener, str]]:
    """These, and a mapping of the wildcard."""
    wildcards = {
        listener.key: listener for listener in plan.listeners if listener.address in WILDCARDS.values()
    }
    for listener in plan.listeners:
        key = listener_key(listener.transport, WILDCARDS[listener.address.version], listener.port)
        wildcard = wildcards.get(key)
        if wildcard is None or wildcard is listener:
            continue
        own = [rule for rule in wildcard.rules if rule.mapping and rule.mapping not in restricting]
        owners = {cluster_of(rule.mapping) for rule in (*listener.rules, *wildcard.rules) if rule.mapping}
        denied = [rule.mapping for rule in own if rule.action is Action.DENY]
        if len(owners) > 1 or denied:
            yield listener, f"denying mapping {denied[0]}" if denied else f"mapping {own[0].mapping}"


def _unused(cluster: Cluster) -> Iterator[Finding]:
    """Services that no mapping names. `all` and `external` name every one, if only to exclude it."""
    named = {name for mapping in cluster.mappings for name in mapping.references}
    if not named.isdisjoint((ALL, EXTERNAL)):
        return
    unused = [
        service.name
        for service in cluster.services
        if service.name not in named and f"{COLLECTION_PREFIX}{service.collection}" not in named
    ]
    if unused:
        message = f"no mapping names {listed(unused)}"
        yield Finding(Severity.WARNING, f"services of cluster {cluster.name}", message)
