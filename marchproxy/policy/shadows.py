"""Mappings that earlier ones leave nothing to match."""

from collections.abc import Iterator
from collections.abc import Mapping as MappingABC
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from marchproxy.model.address import Prefix
from marchproxy.policy.covering import Covers
from marchproxy.policy.plan import ANYONE, Finding, Listener, Plan, Rule, Severity
from marchproxy.policy.sources import SourceIndex
from marchproxy.policy.wording import listed


@dataclass(slots=True)
class _Shadow:
    """Where a mapping is shadowed, and by which earlier ones."""

    earlier: dict[str, None] = field(default_factory=dict)
    listeners: list[Listener] = field(default_factory=list)
    transit: bool = False

    def __str__(self) -> str:
        where = [f"at {listed(map(str, self.listeners))}"] if self.listeners else []
        where += ["in transit"] if self.transit else []
        verb = "comes first and takes" if len(self.earlier) == 1 else "come first and take"
        what = "traffic" if self.transit else "sources"
        return f"never matches {' and '.join(where)}: {listed(self.earlier)} {verb} all its {what}"


def shadowed(plan: Plan, restricting: AbstractSet[str], unsettled: AbstractSet[str]) -> Iterator[Finding]:
    """A finding for each shadowed mapping.

    `restricting` mappings stand in transit and at listeners of others, some of which may well be exceptions:
    they are told only if they match nowhere. `unsettled` are services with host names, whose addresses move.
    """
    shadows: dict[str, _Shadow] = {}
    alive = _in_transit(plan, unsettled, shadows)
    settled = {name: prefixes for name, prefixes in plan.sources.items() if name not in unsettled}
    index = SourceIndex(settled)
    for listener in plan.listeners:
        # Where requests are read, sources are not all that tells rules apart.
        if listener.reads_http:
            alive |= restricting & {rule.mapping for rule in listener.rules}
        elif len(listener.rules) > 1:
            alive |= restricting & _at(listener, settled, index, shadows)
    for mapping, shadow in shadows.items():
        if mapping not in alive:
            hint = "give it a lower priority number, or remove it"
            yield Finding(Severity.WARNING, f"mapping {mapping}", str(shadow), hint)


def _in_transit(plan: Plan, unsettled: AbstractSet[str], shadows: dict[str, _Shadow]) -> set[str]:
    """The mappings that something is left for. A mapping with several rules is shadowed if all are."""
    covers = Covers(plan.transit, plan.sources, unsettled)
    alive: set[str] = set()
    found: dict[str, dict[str, None]] = {}
    for number, rule in enumerate(plan.transit):
        earlier = covers.earlier(number) if rule.mapping and rule.mapping not in alive else []
        if earlier:
            found.setdefault(rule.mapping, {}).update(dict.fromkeys(each.mapping for each in earlier))
        else:
            alive.add(rule.mapping)
    for mapping, names in found.items():
        if mapping not in alive:
            shadows[mapping] = _Shadow(names, transit=True)
    return alive


def _at(
    listener: Listener,
    settled: MappingABC[str, tuple[Prefix, ...]],
    index: SourceIndex,
    shadows: dict[str, _Shadow],
) -> set[str]:
    """The same for one listener."""
    taken = _Taken(settled, index, listener.address.version)
    found: dict[str, str] = {}
    alive = set()
    for rule in listener.rules:
        earlier = taken.by_whom(rule) if rule.mapping else None
        if earlier is None:
            alive.add(rule.mapping)
            taken.add(rule)
        else:
            found[rule.mapping] = earlier
    for mapping, earlier in found.items():
        if mapping not in alive:
            shadow = shadows.setdefault(mapping, _Shadow())
            shadow.earlier[earlier] = None
            shadow.listeners.append(listener)
    return alive


@dataclass(slots=True)
class _Taken:
    """The sources that the rules of a listener have taken so far, for good."""

    sources: MappingABC[str, tuple[Prefix, ...]]
    index: SourceIndex
    version: int
    everyone: str | None = None
    """The mapping that takes whatever comes."""
    lists: dict[tuple[int, int], str] = field(default_factory=dict)
    """Identities of a rule's sources and excluded, to its mapping: compilation shares equal tuples."""
    services: dict[str, str] = field(default_factory=dict)

    def add(self, rule: Rule) -> None:
        """Count the sources of `rule` as taken, unless it gives them back when it expires."""
        if rule.expires is not None:
            return
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
        for prefix in self.sources.get(service, ()):
            if prefix.version == self.version:
                holders = self.index.holders(prefix.network_address, prefix.prefixlen)
                found = next((self.services[name] for name in sorted(holders) if name in self.services), None)
                if found is None:
                    break
        return found
