"""From a snapshot to a plan.

Compiling again with the previous result at hand costs a walk over the snapshot plus the work for what
changed: a mapping is compiled anew only if it, or a service it names, is not what it was. Everything else in
the new plan is the very object of the old one, so a consumer may find the difference by identity.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from marchproxy.model.address import IPAddress
from marchproxy.model.management import MANAGEMENT_PORTS
from marchproxy.model.snapshot import Snapshot
from marchproxy.policy.assembly import assemble
from marchproxy.policy.blocks import BlockMemo, Contents, compile_blocks
from marchproxy.policy.checks import BackendKey
from marchproxy.policy.directory import (
    DownTable,
    HostTable,
    build_directory,
)
from marchproxy.policy.limits import compile_limits
from marchproxy.policy.listeners import Places, update_places
from marchproxy.policy.needs import Needs
from marchproxy.policy.parts import ClusterMemo, compile_parts, nothing_compiled, replaced
from marchproxy.policy.plan import Plan, RateLimit
from marchproxy.policy.pools import PoolCache
from marchproxy.policy.restrictions import Restrictions
from marchproxy.policy.rules import Part, Terms
from marchproxy.policy.transit import Routes, audit_rules, update_routes


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
    needs: Needs = field(default_factory=Needs)
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
    gone: list[Part] = []
    came: list[Part] = []
    for cluster in snapshot.clusters:
        old = before.clusters.get(cluster.name, nothing_compiled(cluster.name))
        directory = build_directory(cluster, hosts, moved, old.directory, left, failed, turned)
        terms = Terms(cluster.audit or snapshot.settings.audit, management)
        parts, new = compile_parts(cluster.mappings, directory, terms, old, before.pools, now)
        clusters[cluster.name] = ClusterMemo(directory, parts, terms)
        gone += replaced(old.parts, parts, new)
        came += new
    gone += [
        part for name, memo in before.clusters.items() if name not in clusters for part in memo.parts.values()
    ]
    every = [part for memo in clusters.values() for part in memo.parts.values()]
    restrictions = _restrictions(every, before.restrictions)
    audited = frozenset([name for name, memo in clusters.items() if memo.terms.audit])
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
    needs = before.needs.exchange(
        [*_lists(gone), *[rule.sources for rule in before.routes.audited]],
        [*_lists(came), *[rule.sources for rule in routes.audited]],
    )
    plan = assemble(snapshot, directories, every, restrictions, places, routes, needs, limits)
    resolved = {host: (*hosts.get(host, ()), *left.get(host, ())) for host in hosts.keys() | left.keys()}
    blocked = compile_blocks(snapshot.blocks, snapshot.block_lists, contents, resolved, now, before.blocks)
    plan = replace(plan, management=management, blocks=blocked.blocks, names=plan.names | blocked.resolving)
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
        needs,
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


def _restrictions(parts: Iterable[Part], old: Restrictions) -> Restrictions:
    """The restrictions of all clusters: `old` itself, if they are the same."""
    every = tuple([part.restriction for part in parts if part.restriction is not None])
    return old if every == old.every else Restrictions(every)


def _lists(parts: Iterable[Part]) -> list[tuple[str, ...]]:
    return [names for part in parts for names in (part.sources, part.destinations)]
