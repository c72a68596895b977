"""What is wrong or useless in a snapshot, beyond what stops a plan: `marchproxy check`."""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from marchproxy.model.entities import Action
from marchproxy.model.names import ALL, COLLECTION_PREFIX, EXTERNAL, cluster_of, qualify
from marchproxy.model.snapshot import Cluster, Snapshot
from marchproxy.policy.compile import Compiled
from marchproxy.policy.limits import idle_limits
from marchproxy.policy.plan import ANYONE, WILDCARDS, Finding, Listener, Plan, Rule, Severity, listener_key
from marchproxy.policy.sources import SourceIndex

SHOWN = 8
"""Names that a finding spells out before it only counts the rest."""


def check(snapshot: Snapshot, compiled: Compiled) -> tuple[Finding, ...]:
    """The findings of the plan, then mappings that never match, hidden listeners, unused services and limits.

    `compiled` must be of this snapshot. Takes time in proportion to all source lists together.
    """
    restricting = {
        qualify(cluster.name, mapping.name)
        for cluster in snapshot.clusters
        for mapping in cluster.mappings
        if mapping.listen is None
    }
    return (
        *compiled.plan.findings,
        *expired(snapshot, compiled),
        *_shadowed(compiled.plan, restricting),
        *_hidden(compiled.plan, restricting),
        *(finding for cluster in snapshot.clusters for finding in _unused(cluster)),
        *idle_limits(snapshot),
    )


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


def _shadowed(plan: Plan, restricting: AbstractSet[str]) -> Iterator[Finding]:
    """Mappings that earlier ones leave nothing to match, with the listeners where that is so.

    `restricting` mappings stand at listeners that are not their own, some of which may well be exceptions:
    they are told only if they match nowhere.
    """
    index = SourceIndex(plan.sources)
    places: dict[str, dict[str, list[Listener]]] = {}
    alive: set[str] = set()
    for listener in plan.listeners:
        if len(listener.rules) > 1:
            shadowed, living = _shadowed_at(listener, plan, index)
            alive |= living & restricting
            for mapping, earlier in shadowed.items():
                places.setdefault(mapping, {}).setdefault(earlier, []).append(listener)
    for mapping, where in places.items():
        if mapping not in alive:
            listeners = _listed(str(listener) for held in where.values() for listener in held)
            verb = "comes first and takes" if len(where) == 1 else "come first and take"
            message = f"never matches at {listeners}: {_listed(where)} {verb} all its sources"
            hint = "give it a lower priority number, or remove it"
            yield Finding(Severity.WARNING, f"mapping {mapping}", message, hint)


def _shadowed_at(listener: Listener, plan: Plan, index: SourceIndex) -> tuple[dict[str, str], set[str]]:
    """Shadowed mappings, each with the earlier one that does it, and mappings that are not shadowed.

    A mapping with two rules is shadowed if both are.
    """
    taken = _Taken(plan, index, listener.address.version)
    shadowed: dict[str, str] = {}
    alive = set()
    for rule in listener.rules:
        earlier = taken.by_whom(rule)
        if earlier is None:
            alive.add(rule.mapping)
            taken.add(rule)
        else:
            shadowed[rule.mapping] = earlier
    return {mapping: earlier for mapping, earlier in shadowed.items() if mapping not in alive}, alive


def _listed(items: Iterable[str]) -> str:
    """All of up to `SHOWN`, else the first and how many more there are."""
    names = list(items)
    if len(names) > SHOWN:
        names = [*names[:SHOWN], f"{len(names) - SHOWN} more"]
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


@dataclass(slots=True)
class _Taken:
    """The sources that the rules of a listener have taken so far."""

    plan: Plan
    index: SourceIndex
    version: int
    everyone: str | None = None
    """The mapping that takes whatever comes."""
    lists: dict[tuple[int, int], str] = field(default_factory=dict)
    """Identities of a rule's sources and excluded, to its mapping: compilation shares equal tuples."""
    services: dict[str, str] = field(default_factory=dict)

    def add(self, rule: Rule) -> None:
        """Count the sources of `rule` as taken."""
        self.lists[id(rule.sources), id(rule.excluded)] = rule.mapping
        if ANYONE not in rule.sources:
            self.services.update(dict.fromkeys(rule.sources, rule.mapping))
        elif not rule.excluded:
            self.everyone = rule.mapping

    def by_whom(self, rule: Rule) -> str | None:
        """A mapping that has taken sources of `rule`, if all of them are taken."""
        found = self.everyone or self.lists.get((id(rule.sources), id(rule.excluded)))
        if found is not None or ANYONE in rule.sources:
            return found
        for service in rule.sources:
            found = self.services.get(service) or self._by_prefixes(service)
            if found is None:
                break
        return found

    def _by_prefixes(self, service: str) -> str | None:
        """The same for one service, whose prefixes may all be part of other services'."""
        found = None
        for prefix in self.plan.sources[service]:
            if prefix.version == self.version:
                holders = self.index.holders(prefix.network_address, prefix.prefixlen)
                found = next((self.services[name] for name in sorted(holders) if name in self.services), None)
                if found is None:
                    break
        return found


def _hidden(plan: Plan, restricting: AbstractSet[str]) -> Iterator[Finding]:
    """Listeners at one address that keep those of the wildcard from applying, where that may surprise.

    `restricting` mappings apply to both wherever they have something to deny.
    """
    wildcards = {
        listener.key: listener for listener in plan.listeners if listener.address in WILDCARDS.values()
    }
    for listener in plan.listeners:
        key = listener_key(listener.transport, WILDCARDS[listener.address.version], listener.port)
        wildcard = wildcards.get(key)
        if wildcard is None or wildcard is listener:
            continue
        owners = {cluster_of(rule.mapping) for rule in (*listener.rules, *wildcard.rules)}
        own = [rule for rule in wildcard.rules if rule.mapping not in restricting]
        denied = [rule.mapping for rule in own if rule.action is Action.DENY]
        if len(owners) > 1 or denied:
            what = f"denying mapping {denied[0]}" if denied else f"mapping {own[0].mapping}"
            message = f"has its own mappings: those of {wildcard} do not apply to it, such as {what}"
            yield Finding(
                Severity.WARNING, f"listener {listener}", message, "listen on the same address in both"
            )


def _unused(cluster: Cluster) -> Iterator[Finding]:
    """Services that no mapping names. `all` and `external` name every one, if only to exclude it."""
    named = {name for mapping in cluster.mappings for name in (*mapping.sources, *mapping.destinations)}
    if not named.isdisjoint((ALL, EXTERNAL)):
        return
    unused = [
        service.name
        for service in cluster.services
        if service.name not in named and f"{COLLECTION_PREFIX}{service.collection}" not in named
    ]
    if unused:
        message = f"no mapping names {_listed(unused)}"
        yield Finding(Severity.WARNING, f"services of cluster {cluster.name}", message)
