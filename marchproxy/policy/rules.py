"""One mapping compiled: its rules at the listeners it opens, and what the operator should know about it."""

from collections.abc import Iterator
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass

from marchproxy.model.address import IPAddress
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.entities import Action, Auth, Mapping
from marchproxy.model.ports import format_ports, single_port
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.directory import Directory, Referents
from marchproxy.policy.plan import ANYONE, WILDCARDS, Finding, ListenerKey, Pool, Rule, Severity, listener_key
from marchproxy.policy.pools import Choice, PoolCache, choose_backends

MANAGEMENT = frozenset({(Transport.TCP, 22)})
"""What no listener may take: the way in for whoever has to repair things."""

_EVERYONE = (ANYONE,)

type Backing = MappingABC[IPAddress, Pool | None]
"""Listen addresses of a mapping, and the pool behind each."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one mapping contributes to the plan."""

    mapping: Mapping
    rules: tuple[tuple[ListenerKey, Rule], ...] = ()
    sources: tuple[str, ...] = ()
    """Every service whose prefixes the rules need: the same tuple object where mappings name the same."""
    hosts: tuple[str, ...] = ()
    """Host names that may bring backends."""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why everything that a mapping matches is refused."""

    reason: Reason
    surprise: str = ""
    """What to tell the operator, who meant something else."""


def compile_mapping(mapping: Mapping, directory: Directory, pools: PoolCache) -> Part:
    """Compile one mapping. Raises nothing: what is wrong with it is among its findings."""
    sources = directory.resolve(mapping.sources)
    destinations = directory.resolve(mapping.destinations)
    name = f"{directory.cluster.name}/{mapping.name}"
    subject = f"mapping {name}"
    findings = [*_reference_findings(subject, sources), *_reference_findings(subject, destinations)]
    listen = mapping.listen
    if listen is None:
        return Part(mapping, findings=(*findings, _transit_finding(subject, mapping)))
    refusal = _refusal(mapping, destinations)
    choice = choose_backends(mapping, listen.port, destinations) if refusal is None else Choice()
    backing = {address: pools.pool(choice.members, address.version) for address in _addresses(listen)}
    findings += _listen_findings(subject, mapping, listen)
    if refusal is None:
        findings += _backend_findings(subject, mapping, choice, backing)
    elif refusal.surprise:
        findings.append(Finding(Severity.WARNING, subject, refusal.surprise))
    rules = tuple(
        (listener_key(transport, address, listen.port), rule)
        for address, pool in backing.items()
        for rule in _rules(name, mapping, refusal, pool, sources, directory)
        for transport in _transports(mapping)
    )
    needed = () if sources.everyone else directory.names if sources.external else sources.names
    return Part(mapping, rules, needed, choice.hosts, tuple(findings))


def _rules(
    name: str,
    mapping: Mapping,
    refusal: Refusal | None,
    pool: Pool | None,
    sources: Referents,
    directory: Directory,
) -> Iterator[Rule]:
    reason = refusal.reason if refusal else Reason.FORWARDED if pool else Reason.NO_BACKEND
    for included, excluded in _audiences(sources, directory):
        yield Rule(name, mapping.priority, included, excluded, pool, reason, mapping.expires, mapping.action)


def _audiences(sources: Referents, directory: Directory) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Sources and excluded, one pair per rule.

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


def _addresses(listen: Endpoint) -> tuple[IPAddress, ...]:
    return tuple(WILDCARDS.values()) if listen.address is None else (listen.address,)


def _transports(mapping: Mapping) -> list[Transport]:
    carried = {protocol.transport for protocol in mapping.protocols}
    return [transport for transport in Transport if transport in carried]


def _refusal(mapping: Mapping, destinations: Referents) -> Refusal | None:
    """Why the mapping refuses what it matches, if it does.

    A condition that cannot be tested here (host, path) refuses too. Leaving it out would let through, or have
    a lower mapping let through, what the operator meant to hold back.
    """
    conditions = [
        what
        for what, value in (("host", mapping.host), ("path prefix", mapping.path_prefix))
        if value is not None
    ]
    if conditions:
        what = " and ".join(conditions)
        return Refusal(
            Reason.NOT_CARRIED, f"looks at the {what}, which is not carried in this version: denied"
        )
    if mapping.action is Action.DENY:
        return Refusal(Reason.DENY_MAPPING)
    asking = [entry.name for entry in destinations.entries if entry.service.auth is not Auth.NONE]
    if mapping.auth_required or asking:
        who = "" if mapping.auth_required else f" for {', '.join(asking)}"
        return Refusal(
            Reason.AUTH_MISSING, f"wants a credential{who}, which is not carried in this version: denied"
        )
    return None


def _reference_findings(subject: str, referents: Referents) -> Iterator[Finding]:
    for name in referents.unknown:
        yield Finding(
            Severity.ERROR, subject, f"names service {name}, which does not exist", "add the service"
        )
    for name in referents.empty:
        yield Finding(Severity.WARNING, subject, f"names {name}, to which no service belongs")


def _transit_finding(subject: str, mapping: Mapping) -> Finding:
    message = "has no listen address: routed traffic is not carried in this version: denied"
    hint = "give it a listen address, such as *:443"
    if mapping.action is Action.DENY:
        hint = "it does not bear on what other mappings listen for: give it their listen address"
    return Finding(Severity.WARNING, subject, message, hint)


def _listen_findings(subject: str, mapping: Mapping, listen: Endpoint) -> Iterator[Finding]:
    for transport in _transports(mapping):
        if (transport, listen.port) in MANAGEMENT:
            message = f"listens on {listen.port}/{transport} and would capture the management port"
            yield Finding(Severity.ERROR, subject, message, "choose another port")
    for protocol in mapping.protocols:
        if protocol.transport is None:
            yield Finding(Severity.WARNING, subject, f"cannot listen for {protocol}: not carried, denied")


def _backend_findings(subject: str, mapping: Mapping, choice: Choice, backing: Backing) -> Iterator[Finding]:
    """What is wrong with the destinations: errors where no backend can ever come, else warnings."""
    hopeless = not any(backing.values()) and not choice.hosts
    severity = Severity.ERROR if hopeless else Severity.WARNING
    for problem in choice.problems:
        yield Finding(severity, subject, problem)
    if choice.members and mapping.ports and single_port(mapping.ports) is None:
        message = f"lists {format_ports(mapping.ports)} for one listen port: each backend is asked on its own"
        yield Finding(Severity.WARNING, subject, message, "list the one port of the backends")
    missing = [f"IPv{address.version}" for address, pool in backing.items() if pool is None]
    if missing:
        message = f"has no {' or '.join(missing)} backend: such clients of {mapping.listen} are denied"
        hint = f"waiting for {', '.join(choice.hosts)}" if choice.hosts else "add an address to a destination"
        yield Finding(severity, subject, message, hint)
