"""From a snapshot to a plan.

Compiling again with the previous result at hand costs a walk over the snapshot plus the work for what
changed: a mapping is compiled anew only if it, or a service it names, is not what it was. Everything else in
the new plan is the very object of the old one, so a consumer may find the difference by identity.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from types import MappingProxyType

from marchproxy.model.address import IPAddress
from marchproxy.model.entities import Mapping
from marchproxy.model.management import MANAGEMENT_PORTS
from marchproxy.model.names import cluster_of
from marchproxy.model.reason import Reason
from marchproxy.model.snapshot import Snapshot
from marchproxy.policy.blocks import BlockMemo, Contents, compile_blocks
from marchproxy.policy.checks import BackendKey, Watched
from marchproxy.policy.directory import (
    Delta,
    Directory,
    DownTable,
    HostTable,
    build_directory,
    compare,
    empty_directory,
)
from marchproxy.policy.limits import Limits, compile_limits
from marchproxy.policy.listeners import Places, meet, update_places
from marchproxy.policy.ownlisteners import dns_endpoints, own_listener_findings
from marchproxy.policy.plan import Finding, Listener, Plan, RateLimit, Severity, TransitRule
from marchproxy.policy.pools import PoolCache
from marchproxy.policy.restrictions import Restrictions
from marchproxy.policy.rules import Part, Terms, compile_mapping
from marchproxy.policy.transit import Routes, audit_rules, update_routes


@dataclass(frozen=True, slots=True)
class ClusterMemo:
    """A cluster as it was compiled."""

    directory: Directory
    parts: MappingABC[str, Part]
    """By plain mapping name, without expired ones."""
    terms: Terms


@dataclass(frozen=True, slots=True)
class Memo:
    """What the next compilation builds on. Opaque to everyone else."""

    hosts: HostTable = field(default_factory=dict)
    lingering: HostTable = field(default_factory=dict)
    down: DownTable = field(default_factory=dict)
    clusters: MappingABC[str, ClusterMemo] = field(default_factory=dict)
    restrictions: Restrictions = field(default_factory=Restrictions)
    places: Places = field(default_factory=dict)
    audited: frozenset[str] = frozenset()
    """Clusters that let through what no mapping matches."""
    routes: Routes = field(default_factory=Routes)
    limits: tuple[RateLimit, ...] = ()
    pools: PoolCache = field(default_factory=PoolCache)
    blocks: BlockMemo = field(default_factory=BlockMemo)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A plan, and what is needed to compile its successor quickly."""

    plan: Plan
    at: datetime
    """The instant the plan is for."""
    next_expiry: datetime | None
    """When to compile again although nothing changed: the next mapping or block expires."""
    memo: Memo = field(repr=False, compare=False)


def compile_plan(
    snapshot: Snapshot,
    *,
    names: MappingABC[str, Sequence[IPAddress]] = MappingProxyType({}),
    lingering: MappingABC[str, Sequence[IPAddress]] = MappingProxyType({}),
    down: frozenset[BackendKey] = frozenset(),
    management: frozenset[int] = MANAGEMENT_PORTS,
    contents: Contents = MappingProxyType({}),
    now: datetime,
    previous: Compiled | None = None,
) -> Compiled:
    """Compile `snapshot` for the instant `now` (with a zone). `names`: host names and what they resolve to.

    `lingering`: what they resolved to until lately. It still says who a source is and where transit traffic
    may go, is still blocked if its name is, and is no backend for new flows. `down`: the backends that checks
    found down. `contents`: what the snapshot's block lists hold, by SHA-256; without its contents a list
    blocks nothing. `management`: TCP ports of the host that no listener may take.

    Never raises for what an operator can write: the plan's findings say what is wrong, and a plan with an
    error among them must not be applied. The result is equal with and without `previous`.
    """
    before = previous.memo if previous else Memo()
    hosts = {host: tuple(addresses) for host, addresses in names.items()}
    left = {host: tuple(addresses) for host, addresses in lingering.items()}
    moved = _moved(before.hosts, hosts) | _moved(before.lingering, left)
    failed = _by_service(down)
    turned = {name for name in failed.keys() | before.down if failed.get(name) != before.down.get(name)}
    clusters = {}
    for cluster in snapshot.clusters:
        old = before.clusters.get(cluster.name, _nothing(cluster.name))
        directory = build_directory(cluster, hosts, moved, old.directory, left, failed, turned)
        terms = Terms(cluster.audit or snapshot.settings.audit, management)
        parts = _compile_parts(cluster.mappings, directory, terms, old, before.pools, now)
        clusters[cluster.name] = ClusterMemo(directory, parts, terms)
    every = [part for memo in clusters.values() for part in memo.parts.values()]
    restrictions = _restrictions(every, before.restrictions)
    audited = frozenset([name for name, memo in clusters.items() if memo.terms.audit])
    gone, came = _only_in(before.clusters, clusters), _only_in(clusters, before.clusters)
    places = update_places(
        before.places,
        gone,
        came,
        restrictions,
        audited,
        anew=restrictions is not before.restrictions or audited != before.audited,
    )
    by_name = {name: memo.directory for name, memo in clusters.items()}
    limits = compile_limits(snapshot.limits, by_name, before.limits)
    directories = list(by_name.values())
    routes = update_routes(
        before.routes,
        [rule for part in gone for rule in part.transit],
        [rule for part in came for rule in part.transit],
        audit_rules(snapshot, directories),
    )
    plan = _assemble(snapshot, directories, every, restrictions, places, routes, limits)
    resolved = {host: (*hosts.get(host, ()), *left.get(host, ())) for host in hosts.keys() | left.keys()}
    blocked = compile_blocks(snapshot.blocks, snapshot.block_lists, contents, resolved, now, before.blocks)
    plan = replace(plan, blocks=blocked.blocks, names=plan.names | blocked.resolving)
    expiries = [part.mapping.expires for part in every if part.mapping.expires]
    expiries += [blocked.next_expiry] if blocked.next_expiry else []
    memo = Memo(
        hosts,
        left,
        failed,
        clusters,
        restrictions,
        places,
        audited,
        routes,
        limits.rates,
        before.pools,
        blocked,
    )
    return Compiled(plan, now, min(expiries, default=None), memo)


def _moved(old: HostTable, new: HostTable) -> set[str]:
    return {host for host in old.keys() | new.keys() if old.get(host) != new.get(host)}


def _by_service(down: Iterable[BackendKey]) -> DownTable:
    found: dict[str, set[BackendKey]] = {}
    for key in down:
        found.setdefault(key.service, set()).add(key)
    return {name: frozenset(keys) for name, keys in found.items()}


def _nothing(cluster: str) -> ClusterMemo:
    return ClusterMemo(empty_directory(cluster), {}, Terms())


def _compile_parts(
    mappings: Iterable[Mapping],
    directory: Directory,
    terms: Terms,
    old: ClusterMemo,
    pools: PoolCache,
    now: datetime,
) -> dict[str, Part]:
    delta = compare(old.directory, directory)
    agreed = terms == old.terms
    same = agreed and old.directory is directory
    parts = {}
    for mapping in mappings:
        if mapping.expires is not None and mapping.expires <= now:
            continue
        part = old.parts.get(mapping.name)
        # Mostly ten thousand of them are the same, and the call alone would cost more than to see that.
        untouched = same and part is not None and part.mapping is mapping
        if part is None or not (untouched or (agreed and _still_true(part, mapping, delta))):
            part = _keep(part, compile_mapping(mapping, directory, pools, terms))
        parts[mapping.name] = part
    return parts


def _still_true(part: Part, mapping: Mapping, delta: Delta) -> bool:
    """Whether `part` is what compiling `mapping` would give.

    Of a source only the name is in the rules, and of a destination too if it is not a backend.
    """
    meant = delta.demands if mapping.listen is None else delta.contents
    return (
        (part.mapping is mapping or part.mapping == mapping)
        and meant.isdisjoint(mapping.destinations)
        and delta.members.isdisjoint(mapping.sources)
    )


def _keep(old: Part | None, new: Part) -> Part:
    """`new`, with the very objects of `old` where they are equal."""
    if old is None:
        return new
    return replace(
        new,
        rules=_same(old.rules, new.rules),
        joining=_same(old.joining, new.joining),
        transit=_same(old.transit, new.transit),
        restriction=old.restriction if _restricts_alike(old, new) else new.restriction,
    )


def _restricts_alike(old: Part, new: Part) -> bool:
    held, wanted = old.restriction, new.restriction
    if held is None or wanted is None or old.mapping != new.mapping:
        return False
    return held.services == wanted.services and held.rules == wanted.rules


def _same[T](old: T, new: T) -> T:
    return old if old == new else new


def _only_in(these: MappingABC[str, ClusterMemo], those: MappingABC[str, ClusterMemo]) -> list[Part]:
    found = []
    for cluster, memo in these.items():
        others = those[cluster].parts if cluster in those else {}
        found += [part for name, part in memo.parts.items() if others.get(name) is not part]
    return found


def _restrictions(parts: Iterable[Part], old: Restrictions) -> Restrictions:
    """The restrictions of all clusters: `old` itself, if they are the same."""
    every = tuple([part.restriction for part in parts if part.restriction is not None])
    return old if every == old.every else Restrictions(every)


def _assemble(
    snapshot: Snapshot,
    directories: Sequence[Directory],
    parts: Sequence[Part],
    restrictions: Restrictions,
    places: Places,
    routes: Routes,
    limits: Limits,
) -> Plan:
    met = meet(places, restrictions)
    needed = _joined([part.sources for part in parts] + [part.destinations for part in parts])
    needed |= _joined([rule.sources for rule in routes.audited])
    sources = {}
    resolving = {host for part in parts for host in part.hosts} | limits.hosts
    for directory in directories:
        for entry in directory.entries.values():
            if entry.name in needed:
                sources[entry.name] = entry.prefixes
                resolving.update(entry.hosts)
    listeners = tuple([place.listener for place in places.values() if place.listener])
    findings = [finding for directory in directories for finding in directory.findings]
    findings += [finding for part in parts for finding in part.findings]
    findings += [finding for findings in met.values() for finding in findings]
    findings += limits.findings
    findings += _plan_findings(snapshot, listeners, routes.mapped)
    findings += own_listener_findings(snapshot.listeners, listeners)
    return Plan(
        listeners=listeners,
        transit=routes.every,
        sources=MappingProxyType(sources),
        interfaces=snapshot.interfaces,
        limits=limits.rates,
        settings=snapshot.settings,
        dns=dns_endpoints(snapshot.listeners),
        names=frozenset(resolving),
        watched=_watched(parts),
        findings=tuple(findings),
    )


def _watched(parts: Iterable[Part]) -> tuple[Watched, ...]:
    """Each once: mappings that send to the same port of a service hold the same tuple."""
    lists = {id(watched): watched for part in parts for watched in part.watched}
    return tuple(chain.from_iterable(lists.values()))


def _joined(lists: Iterable[tuple[str, ...]]) -> set[str]:
    """Large source lists are shared objects, and joining ten thousand copies of one would take seconds."""
    return set().union(*{id(names): names for names in lists}.values())


def _plan_findings(
    snapshot: Snapshot, listeners: Iterable[Listener], transit: Iterable[TransitRule]
) -> list[Finding]:
    """What only the whole plan shows."""
    findings = []
    # One cluster shares with nobody, and ten thousand listeners need no look.
    for listener in listeners if len(snapshot.clusters) > 1 else ():
        if len(listener.rules) > 1:
            owners = {cluster_of(rule.mapping) for rule in listener.rules if rule.mapping}
            if len(owners) > 1:
                message = (
                    f"clusters {', '.join(sorted(owners))} share it: one's mappings may decide for the other"
                )
                findings.append(Finding(Severity.WARNING, f"listener {listener}", message))
    if not snapshot.interfaces and listeners:
        message = "there are listeners, but no interface that traffic could come in by"
        findings.append(
            Finding(Severity.WARNING, "interfaces", message, "add the interface that faces the clients")
        )
    if len(snapshot.interfaces) < 2 and any(rule.reason is Reason.FORWARDED for rule in transit):
        message = "mappings without listen address allow routed traffic, which needs two interfaces"
        findings.append(
            Finding(Severity.WARNING, "interfaces", message, "add one inside and one outside interface")
        )
    return findings
