"""One mapping compiled: the rules it comes to, and what the operator should know about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from marchproxy.model.endpoint import Endpoint
from marchproxy.model.entities import Action, Auth, Mapping
from marchproxy.model.names import qualify
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.directory import Directory, Referents
from marchproxy.policy.plan import ANYONE, WILDCARDS, Finding, ListenerKey, Pool, Rule, Severity, listener_key
from marchproxy.policy.pools import Choice, PoolCache, choose_backends
from marchproxy.policy.remarks import (
    backend_findings,
    listen_findings,
    loop_findings,
    reference_findings,
    transit_finding,
)
from marchproxy.policy.restrictions import Restriction

_EVERYONE = (ANYONE,)

type Placed = tuple[ListenerKey, Rule]
type Audience = tuple[tuple[str, ...], tuple[str, ...]]
"""`sources` and `excluded` of a rule."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one mapping contributes to the plan."""

    mapping: Mapping
    rules: tuple[Placed, ...] = ()
    """At the listeners that it opens."""
    joining: tuple[Placed, ...] = ()
    """At listeners that only others may open: those of `*` in a family that it has no backend of."""
    restriction: Restriction | None = None
    """What it is if it denies and does not listen."""
    sources: tuple[str, ...] = ()
    """Every service whose prefixes its rules need: the same tuple object where mappings name the same."""
    hosts: tuple[str, ...] = ()
    """Host names that may bring backends."""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why everything that a mapping matches is refused."""

    reason: Reason
    surprise: str = ""
    """What to tell the operator, who meant something else."""


_DENIED = Refusal(Reason.DENY_MAPPING)


class _Reading(NamedTuple):
    """A mapping, and what its references stand for."""

    mapping: Mapping
    cluster: str
    destinations: Referents
    audiences: tuple[Audience, ...]
    """One for each rule."""
    sources: tuple[str, ...]
    """Every service that the audiences name."""

    @property
    def name(self) -> str:
        """Qualified."""
        return qualify(self.cluster, self.mapping.name)

    def rules(self, reason: Reason, pool: Pool | None = None) -> list[Rule]:
        """Its rules at a listener."""
        name, mapping = self.name, self.mapping
        return [
            Rule(name, mapping.priority, included, excluded, pool, reason, mapping.expires, mapping.action)
            for included, excluded in self.audiences
        ]


def compile_mapping(mapping: Mapping, directory: Directory, pools: PoolCache) -> Part:
    """Compile one mapping. Raises nothing: what is wrong with it is among its findings."""
    sources = directory.resolve(mapping.sources)
    destinations = directory.resolve(mapping.destinations)
    reading = _Reading(
        mapping=mapping,
        cluster=directory.cluster.name,
        destinations=destinations,
        audiences=tuple(_audiences(sources, directory)),
        sources=() if sources.everyone else directory.names if sources.external else sources.names,
    )
    subject = f"mapping {reading.name}"
    findings = [*reference_findings(subject, sources), *reference_findings(subject, destinations)]
    if mapping.listen is not None:
        return _listen(reading, mapping.listen, pools, subject, findings)
    if mapping.action is Action.DENY:
        return Part(mapping, restriction=_restrict(reading, subject), findings=tuple(findings))
    return Part(mapping, findings=(*findings, transit_finding(subject)))


def _listen(
    reading: _Reading, listen: Endpoint, pools: PoolCache, subject: str, findings: list[Finding]
) -> Part:
    mapping = reading.mapping
    refusal = _refusal(mapping, reading.destinations)
    choice = choose_backends(mapping, listen.port, reading.destinations) if refusal is None else Choice()
    addresses = WILDCARDS.values() if listen.address is None else (listen.address,)
    backing = [(address, pools.pool(choice.members, address.version)) for address in addresses]
    findings += listen_findings(subject, mapping, listen)
    if refusal is None:
        findings += backend_findings(subject, mapping, choice, backing)
        findings += loop_findings(subject, listen, choice, backing)
    elif refusal.surprise:
        findings.append(Finding(Severity.WARNING, subject, refusal.surprise))
    backed = any(pool for _, pool in backing)
    carried = {protocol.transport for protocol in mapping.protocols}
    transports = [transport for transport in Transport if transport in carried]
    opened: list[Placed] = []
    joined: list[Placed] = []
    for address, pool in backing:
        reason = refusal.reason if refusal else Reason.FORWARDED if pool else Reason.NO_BACKEND
        keys = [listener_key(transport, address, listen.port) for transport in transports]
        placed = [(key, rule) for rule in reading.rules(reason, pool) for key in keys]
        (joined if backed and not pool else opened).extend(placed)
    return Part(
        mapping=mapping,
        rules=tuple(opened),
        joining=tuple(joined),
        sources=reading.sources,
        hosts=choice.hosts,
        findings=tuple(findings),
    )


def _restrict(reading: _Reading, subject: str) -> Restriction:
    mapping, destinations = reading.mapping, reading.destinations
    refusal = _untestable(mapping) or _DENIED
    return Restriction(
        cluster=reading.cluster,
        mapping=mapping,
        services=None if destinations.everyone else destinations.names,
        rules=tuple(reading.rules(refusal.reason)),
        sources=reading.sources,
        findings=(Finding(Severity.WARNING, subject, refusal.surprise),) if refusal.surprise else (),
    )


def _audiences(sources: Referents, directory: Directory) -> Iterator[Audience]:
    """One for each rule.

    `external` beside services is two rules: one would have to exclude a service and match it too, for an
    address that is in a named service and in an unnamed one.
    """
    if sources.everyone:
        yield _EVERYONE, ()
        return
    if sources.external:
        yield _EVERYONE, directory.names
    if sources.names or not sources.external:
        yield sources.names, ()


def _refusal(mapping: Mapping, destinations: Referents) -> Refusal | None:
    """Why the mapping refuses what it matches, if it does."""
    untestable = _untestable(mapping)
    if untestable is not None:
        return untestable
    if mapping.action is Action.DENY:
        return _DENIED
    asking = [entry.name for entry in destinations.entries if entry.service.auth is not Auth.NONE]
    if mapping.auth_required or asking:
        who = "" if mapping.auth_required else f" for {', '.join(asking)}"
        return Refusal(
            Reason.AUTH_MISSING, f"wants a credential{who}, which is not carried in this version: denied"
        )
    return None


def _untestable(mapping: Mapping) -> Refusal | None:
    """A condition that cannot be tested here (host, path) refuses too.

    Leaving it out would let through, or have a lower mapping let through, what the operator meant to hold
    back.
    """
    conditions = [
        what
        for what, value in (("host", mapping.host), ("path prefix", mapping.path_prefix))
        if value is not None
    ]
    if not conditions:
        return None
    what = " and ".join(conditions)
    return Refusal(Reason.NOT_CARRIED, f"looks at the {what}, which is not carried in this version: denied")
