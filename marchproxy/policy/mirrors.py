"""Where copies of a mapping's requests go (`Mapping.mirror`), and who keeps them from there."""

from collections.abc import Mapping as MappingABC
from types import MappingProxyType
from typing import NamedTuple

from marchproxy.model.endpoint import Endpoints
from marchproxy.model.entities import Action, Auth, Mapping
from marchproxy.model.protocol import Transport
from marchproxy.policy.checks import Watched
from marchproxy.policy.directory import Directory
from marchproxy.policy.evaluate import Evaluator
from marchproxy.policy.plan import WILDCARDS, Backend, Finding, Mirror, Pool, Rule, Severity, precedence
from marchproxy.policy.pools import Choice, PoolCache
from marchproxy.policy.remarks import loop_findings, reference_findings

_NOWHERE = Pool((), ())


class Copies(NamedTuple):
    """What a mapping says about them, compiled."""

    mirrors: MappingABC[int, Mirror] = MappingProxyType({})
    """By the IP version of its listeners; empty: there are none. A service that has no addresses yet is one
    without backends, so that how a listener is carried does not change with what names resolve to."""
    hosts: tuple[str, ...] = ()
    watched: tuple[tuple[Watched, ...], ...] = ()
    findings: tuple[Finding, ...] = ()


NO_COPIES = Copies()


def copies_of(
    mapping: Mapping, listen: Endpoints, directory: Directory, pools: PoolCache, subject: str
) -> Copies:
    """Compile them. A service that wants a credential gets none: a copy has nobody who could present it."""
    if mapping.mirrored is None:
        return NO_COPIES
    name, percent = mapping.mirrored
    referents = directory.resolve((name,))
    findings = [*reference_findings(subject, referents)]
    if not referents.entries:
        return Copies(findings=tuple(findings))
    [entry] = referents.entries
    port = entry.service.port or (listen.ports.first if len(listen.ports) == 1 else None)
    if entry.service.auth is not Auth.NONE:
        findings.append(_warning(subject, f"copies nothing to {entry.name}, which wants a credential"))
        return Copies(findings=tuple(findings))
    if port is None:
        findings.append(_warning(subject, f"copies nothing to {entry.name}, which has no port"))
        return Copies(findings=tuple(findings))
    choice = Choice(((entry, port),))
    found = {version: pools.pool(choice.members, version) for version in (4, 6)}
    places = WILDCARDS.values() if listen.address is None else (listen.address,)
    backing = [(address, pool) for address in places for pool in found.values()]
    findings += loop_findings(subject, listen, choice, backing)
    if not (found[4] or found[6] or choice.hosts):
        findings.append(_warning(subject, f"copies nothing to {entry.name}, which has no single address"))
    # Unlike what the kernel carries, requests may change the family.
    pairs = {version: found[version] or found[10 - version] or _NOWHERE for version in (4, 6)}
    mirrors = {version: Mirror(pool, percent) for version, pool in pairs.items()}
    return Copies(mirrors, choice.hosts, choice.watched, tuple(findings))


def withheld(evaluator: Evaluator, services: frozenset[str], backend: Backend, rule: Rule) -> bool:
    """Whether a client of these services may not have its requests copied to a backend: a mapping that does
    not listen denies it, and comes before the one that copies.
    """
    there = evaluator.sources.services(backend.address) | {backend.service}
    found = evaluator.transit.find(services, there, Transport.TCP.number, backend.port)
    denies = found is not None and found.action is Action.DENY and not found.audit
    return denies and found is not None and precedence(found) < precedence(rule)


def _warning(subject: str, message: str) -> Finding:
    return Finding(Severity.WARNING, subject, message)
