"""From a snapshot to a plan.

Compiling again with the previous result at hand costs a walk over the snapshot plus the work for what
changed: a mapping is compiled anew only if it, or a service it names, is not what it was. Everything else in
the new plan is the very object of the old one, so a consumer may find the difference by identity.
"""

from bisect import insort
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType

from marchproxy.model.address import IPAddress
from marchproxy.model.entities import Action, Mapping
from marchproxy.model.protocol import Transport
from marchproxy.model.snapshot import Cluster, Snapshot
from marchproxy.policy.directory import Delta, Directory, HostTable, build_directory, compare
from marchproxy.policy.plan import Finding, Listener, ListenerKey, Plan, Rule, Severity
from marchproxy.policy.pools import PoolCache
from marchproxy.policy.rules import Part, compile_mapping


@dataclass(frozen=True, slots=True)
class ClusterMemo:
    """A cluster as it was compiled."""

    directory: Directory
    parts: MappingABC[str, Part]
    """By plain mapping name, without expired ones."""


@dataclass(frozen=True, slots=True)
class Memo:
    """What the next compilation builds on. Opaque to everyone else."""

    hosts: HostTable = field(default_factory=dict)
    clusters: MappingABC[str, ClusterMemo] = field(default_factory=dict)
    listeners: MappingABC[ListenerKey, Listener] = field(default_factory=dict)
    pools: PoolCache = field(default_factory=PoolCache)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A plan, and what is needed to compile its successor quickly."""

    plan: Plan
    at: datetime
    """The instant the plan is for."""
    next_expiry: datetime | None
    """When to compile again although nothing changed: the next mapping expires."""
    memo: Memo = field(repr=False, compare=False)


def compile_plan(
    snapshot: Snapshot,
    *,
    names: MappingABC[str, Sequence[IPAddress]] = MappingProxyType({}),
    now: datetime,
    previous: Compiled | None = None,
) -> Compiled:
    """Compile `snapshot` for the instant `now` (with a zone). `names`: host names and what they resolve to.

    Never raises for what an operator can write: the plan's findings say what is wrong, and a plan with an
    error among them must not be applied. The result is equal with and without `previous`.
    """
    before = previous.memo if previous else Memo()
    hosts = {host: tuple(addresses) for host, addresses in names.items()}
    moved = {host for host in hosts.keys() | before.hosts.keys() if hosts.get(host) != before.hosts.get(host)}
    clusters = {}
    for cluster in snapshot.clusters:
        old = before.clusters.get(cluster.name, _nothing(cluster.name))
        directory = build_directory(cluster, hosts, moved, old.directory)
        parts = _compile_parts(cluster.mappings, directory, old, before.pools, now)
        clusters[cluster.name] = ClusterMemo(directory, parts)
    listeners = _update_listeners(before, clusters)
    plan = _assemble(snapshot, clusters, listeners)
    expiries = [
        part.mapping.expires
        for memo in clusters.values()
        for part in memo.parts.values()
        if part.mapping.expires
    ]
    memo = Memo(hosts, clusters, listeners, before.pools)
    return Compiled(plan, now, min(expiries, default=None), memo)


def _nothing(cluster: str) -> ClusterMemo:
    return ClusterMemo(Directory(Cluster(cluster), {}, {}, (), frozenset(), ()), {})


def _compile_parts(
    mappings: Iterable[Mapping], directory: Directory, old: ClusterMemo, pools: PoolCache, now: datetime
) -> dict[str, Part]:
    delta = compare(old.directory, directory)
    parts = {}
    for mapping in mappings:
        if mapping.expires is not None and mapping.expires <= now:
            continue
        part = old.parts.get(mapping.name)
        if part is None or not _still_true(part, mapping, delta):
            part = compile_mapping(mapping, directory, pools)
        parts[mapping.name] = part
    return parts


def _still_true(part: Part, mapping: Mapping, delta: Delta) -> bool:
    """Whether `part` is what compiling `mapping` would give. Of a source only the name is in the rules."""
    return (
        (part.mapping is mapping or part.mapping == mapping)
        and delta.contents.isdisjoint(mapping.destinations)
        and delta.members.isdisjoint(mapping.sources)
    )


def _update_listeners(before: Memo, clusters: MappingABC[str, ClusterMemo]) -> dict[ListenerKey, Listener]:
    """The listeners, in order. Only those that lose or gain a rule are built."""
    gone = _rules_only_in(before.clusters, clusters)
    came = _rules_only_in(clusters, before.clusters)
    listeners = dict(before.listeners)
    for key in gone.keys() | came.keys():
        lost = {id(rule) for rule in gone.get(key, ())}
        held = listeners[key].rules if key in listeners else ()
        rules = _merge([rule for rule in held if id(rule) not in lost], came.get(key, []))
        if rules:
            listeners[key] = _build_listener(key, rules)
        else:
            del listeners[key]
    if listeners.keys() != before.listeners.keys():
        return dict(sorted(listeners.items()))
    return listeners


def _rules_only_in(
    these: MappingABC[str, ClusterMemo], those: MappingABC[str, ClusterMemo]
) -> dict[ListenerKey, list[Rule]]:
    found: dict[ListenerKey, list[Rule]] = {}
    for cluster, memo in these.items():
        others = those[cluster].parts if cluster in those else {}
        for name, part in memo.parts.items():
            if others.get(name) is not part:
                for key, rule in part.rules:
                    found.setdefault(key, []).append(rule)
    return found


def _build_listener(key: ListenerKey, rules: list[Rule]) -> Listener:
    address = IPv4Address(key.address) if key.version == 4 else IPv6Address(key.address)
    transport = Transport.TCP if key.transport == Transport.TCP.number else Transport.UDP
    return Listener(address, key.port, transport, tuple(rules))


def _merge(ordered: list[Rule], more: list[Rule]) -> list[Rule]:
    """Put `more` where they belong: mostly one into many, where sorting would ask for the keys of all."""
    if not ordered:
        return sorted(more, key=_precedence)
    for rule in more:
        insort(ordered, rule, key=_precedence)
    return ordered


def _precedence(rule: Rule) -> tuple[int, bool, str, bool]:
    """First match wins: by priority, deny before allow, by name; of one mapping's rules `external` first."""
    return (rule.priority, rule.action is not Action.DENY, rule.mapping, not rule.excluded)


def _assemble(
    snapshot: Snapshot, clusters: MappingABC[str, ClusterMemo], listeners: MappingABC[ListenerKey, Listener]
) -> Plan:
    parts = [part for memo in clusters.values() for part in memo.parts.values()]
    # Large source lists are shared objects, and joining ten thousand copies of one would take seconds.
    wanted = {id(part.sources): part.sources for part in parts}
    needed: set[str] = set().union(*wanted.values())
    sources = {}
    resolving = {host for part in parts for host in part.hosts}
    for memo in clusters.values():
        for entry in memo.directory.entries.values():
            if entry.name in needed:
                sources[entry.name] = entry.prefixes
                resolving.update(entry.hosts)
    findings = [finding for memo in clusters.values() for finding in memo.directory.findings]
    findings += [finding for part in parts for finding in part.findings]
    findings += _plan_findings(snapshot, listeners.values())
    return Plan(
        listeners=tuple(listeners.values()),
        sources=MappingProxyType(sources),
        interfaces=snapshot.interfaces,
        names=frozenset(resolving),
        findings=tuple(findings),
    )


def _plan_findings(snapshot: Snapshot, listeners: Iterable[Listener]) -> list[Finding]:
    """What only the whole plan shows."""
    findings = []
    # One cluster shares with nobody, and ten thousand listeners need no look.
    for listener in listeners if len(snapshot.clusters) > 1 else ():
        if len(listener.rules) > 1:
            owners = {rule.mapping.partition("/")[0] for rule in listener.rules}
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
    return findings
