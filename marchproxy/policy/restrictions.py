"""Deny mappings without a listen address: they restrict the listeners of others.

A mapping says who may talk to whom, and a listen address is only the means. So what such a mapping denies is
denied wherever traffic is sent to what it covers: it takes its place, by its priority, among the rules of
every listener at which a mapping of its cluster forwards to a backend that it covers.

The policy of a listener comes before the choice of a backend. Where a listener also leads to backends that
the mapping does not cover, the sources are denied those too, and a finding says so.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from marchproxy.model.entities import Mapping
from marchproxy.model.names import cluster_of
from marchproxy.model.ports import Ports
from marchproxy.policy.plan import Backend, Finding, Listener, Pool, Rule, Severity, precedence

SHOWN = 3
"""Places that a finding spells out before it only says that there are others."""


@dataclass(frozen=True, slots=True, eq=False)
class Restriction:
    """One such mapping, compiled."""

    cluster: str
    mapping: Mapping
    services: tuple[str, ...] | None
    """Qualified names of its destinations; None: every service of the cluster."""
    rules: tuple[Rule, ...]
    """The same objects at every listener that it meets."""

    @property
    def transports(self) -> frozenset[int]:
        """IANA numbers of what carries its protocols."""
        carried = (protocol.transport for protocol in self.mapping.protocols)
        return frozenset(transport.number for transport in carried if transport is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """What restrictions cover that are about the same, so that it is looked at once for all of them."""

    services: frozenset[str] | None
    ports: Ports
    """Of the backends; empty: any."""
    transports: frozenset[int]
    restrictions: tuple[Restriction, ...]

    def count(self, pool: Pool) -> int:
        """How many backends of the pool it covers."""
        if self.services is None and not self.ports:
            return len(pool.backends)
        return sum(map(self._covers, pool.backends))

    def _covers(self, backend: Backend) -> bool:
        named = self.services is None or backend.service in self.services
        return named and (not self.ports or any(backend.port in ports for ports in self.ports))


class Limits(NamedTuple):
    """What restrictions come to at one listener."""

    rules: tuple[Rule, ...] = ()
    """Theirs, in first-match order."""
    scopes: tuple[Scope, ...] = ()
    """One tuple object for all listeners that meet the same."""
    excess: tuple[tuple[Scope, Rule], ...] = ()
    """Scopes that do not cover all that the listener leads to, with the last rule of which that is true."""


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class Restrictions:
    """The restrictions of all clusters, found by what traffic is sent to."""

    every: tuple[Restriction, ...] = ()
    _by_service: dict[str, list[Scope]] = field(default_factory=dict, repr=False)
    _by_cluster: dict[str, list[Scope]] = field(default_factory=dict, repr=False)
    """The scopes that cover every service."""
    _known: dict[tuple[Scope, ...], Limits] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        alike: dict[object, list[Restriction]] = {}
        for each in self.every:
            about = (each.cluster, each.mapping.destinations, each.mapping.ports, each.transports)
            alike.setdefault(about, []).append(each)
        for members in alike.values():
            self._index(members[0], tuple(members))

    def _index(self, first: Restriction, members: tuple[Restriction, ...]) -> None:
        services = None if first.services is None else frozenset(first.services)
        scope = Scope(services, first.mapping.ports, first.transports, members)
        if first.services is None:
            self._by_cluster.setdefault(first.cluster, []).append(scope)
        for service in first.services or ():
            self._by_service.setdefault(service, []).append(scope)

    def at(self, transport: int, rules: Iterable[Rule]) -> Limits:
        """What they come to at a listener with these rules, which are in first-match order."""
        forwarding = [(rule, rule.pool) for rule in rules if rule.pool is not None]
        covered: dict[Scope, set[int]] = {}
        for position, (_, pool) in enumerate(forwarding):
            for scope in self._near(pool):
                count = scope.count(pool) if transport in scope.transports else 0
                if count:
                    wholly = covered.setdefault(scope, set())
                    if count == len(pool.backends):
                        wholly.add(position)
        if not covered:
            return NO_LIMITS
        limits = self._together(tuple(covered))
        excess = []
        for scope, wholly in covered.items():
            backwards = range(len(forwarding) - 1, -1, -1)
            beyond = next((position for position in backwards if position not in wholly), None)
            if beyond is not None:
                excess.append((scope, forwarding[beyond][0]))
        return limits._replace(excess=tuple(excess)) if excess else limits

    def _near(self, pool: Pool) -> Iterable[Scope]:
        """The scopes that may cover a backend of the pool, each once."""
        services = dict.fromkeys(backend.service for backend in pool.backends)
        near = dict.fromkeys(scope for service in services for scope in self._by_service.get(service, ()))
        if self._by_cluster:
            for cluster in dict.fromkeys(cluster_of(service) for service in services):
                near |= dict.fromkeys(self._by_cluster.get(cluster, ()))
        return near

    def _together(self, scopes: tuple[Scope, ...]) -> Limits:
        found = self._known.get(scopes)
        if found is None:
            rules = [rule for scope in scopes for each in scope.restrictions for rule in each.rules]
            found = self._known[scopes] = Limits(tuple(sorted(rules, key=precedence)), scopes)
        return found


def excess_findings(restriction: Restriction, beyond: Iterable[tuple[Listener, Rule]]) -> Iterator[Finding]:
    """One, if the restriction comes before a rule that leads to what it does not cover."""
    mapping, priority = restriction.rules[0].mapping, restriction.rules[0].priority
    later = (f"{rule.mapping} at {listener}" for listener, rule in beyond if priority <= rule.priority)
    shown = list(islice(later, SHOWN + 1))
    if shown:
        where = ", ".join(shown[:SHOWN]) + (" and elsewhere" if len(shown) > SHOWN else "")
        message = f"denies its sources all of {where}, also what it does not cover"
        hint = "give what is not to be denied a listener of its own"
        yield Finding(Severity.WARNING, f"mapping {mapping}", message, hint)
