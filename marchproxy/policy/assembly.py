"""The plan, put together from what clusters contribute."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from types import MappingProxyType

from marchproxy.model.appliance import ListenerKind
from marchproxy.model.names import cluster_of
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.model.snapshot import Snapshot
from marchproxy.policy.checks import Watched
from marchproxy.policy.directory import Directory
from marchproxy.policy.limits import Limits
from marchproxy.policy.listeners import Places, meet
from marchproxy.policy.needs import Needs
from marchproxy.policy.ownlisteners import (
    own_certificates,
    own_endpoints,
    own_listener_findings,
    own_proxies,
)
from marchproxy.policy.plan import Finding, Listener, ListenerKey, Plan, Severity, TransitRule
from marchproxy.policy.restrictions import Restrictions
from marchproxy.policy.rules import Part
from marchproxy.policy.spans import spanned, spans
from marchproxy.policy.transit import Routes


def assemble(
    snapshot: Snapshot,
    directories: Sequence[Directory],
    parts: Sequence[Part],
    restrictions: Restrictions,
    places: Places,
    routes: Routes,
    needs: Needs,
    limits: Limits,
) -> Plan:
    """The plan; `directories` and `parts` in the snapshot's order. Blocks are not among its names yet."""
    met = meet(places, restrictions)
    sources, named = {}, {}
    shown: set[str] = set()
    resolving = {host for part in parts for host in part.hosts} | limits.hosts
    for directory in directories:
        for entry in directory.entries.values():
            if entry.hosts:
                named[entry.name] = entry.hosts
            if entry.service.tls_cert is not None:
                shown.add(entry.certificate)
            if entry.name in needs.uses:
                sources[entry.name] = entry.prefixes
                resolving.update(entry.hosts)
    tls = own_certificates(snapshot.listeners)
    listeners = tuple([place.listener for place in places.values() if place.listener])
    findings = [finding for part in parts for finding in part.findings]
    findings += [finding for findings in met.values() for finding in findings]
    findings += limits.findings
    findings += _plan_findings(snapshot, listeners, routes.mapped)
    if not any(item.kind is ListenerKind.EXPLICIT for item in snapshot.listeners):
        findings += _unasked_findings(routes.mapped)
    certificates = _certificates(parts)
    http3 = _http3(parts)
    if certificates:
        findings += _mixed_findings(listeners)
    if http3:
        findings += _taken_findings(http3, listeners)
    findings += _unread_findings(listeners)
    findings += own_listener_findings(snapshot.listeners, listeners)
    return Plan(
        listeners=listeners,
        admitted=_admitted(places),
        transit=routes.every,
        sources=MappingProxyType(sources),
        interfaces=snapshot.interfaces,
        limits=limits.rates,
        settings=snapshot.settings,
        named=MappingProxyType(named),
        dns=own_endpoints(snapshot.listeners, ListenerKind.DNS),
        explicit=own_endpoints(snapshot.listeners, ListenerKind.EXPLICIT),
        tls=MappingProxyType(tls),
        introduced=MappingProxyType(own_proxies(snapshot.listeners)),
        certificates=certificates | frozenset(tls.values()) | shown,
        http3=http3,
        names=frozenset(resolving),
        watched=_watched(parts),
        findings=tuple(findings),
    )


def _admitted(places: Places) -> frozenset[ListenerKey]:
    """Those that ask for something, and all others on their port: a port's wildcard and single addresses take
    connections from one another, so one part of the daemon has them all.
    """
    asking = {key._replace(address=0) for key, place in places.items() if place.asks}
    if not asking:
        return frozenset()
    every = (key for key, place in places.items() if place.listener)
    return frozenset(key for key in every if key._replace(address=0) in asking)


def _certificates(parts: Iterable[Part]) -> frozenset[str]:
    securing = [part for part in parts if part.mapping.tls is not None]
    return frozenset(rule.tls for part in securing for _, rule in part.rules if rule.tls is not None)


def _http3(parts: Iterable[Part]) -> frozenset[ListenerKey]:
    """Where it is spoken: one mapping that says so opens it for all at its listener."""
    speaking = [part for part in parts if part.mapping.http3]
    return frozenset(key for part in speaking for key, rule in part.rules if rule.http3)


def _taken_findings(http3: frozenset[ListenerKey], listeners: Iterable[Listener]) -> Iterator[Finding]:
    """Mappings that would have its datagrams for themselves."""
    by_port: dict[tuple[int, int], set[int]] = {}
    for key in http3:
        by_port.setdefault((key.version, key.port), set()).add(key.address)
    for item in listeners:
        own = item.key
        spoken = by_port.get((own.version, own.port), set())
        if item.transport is Transport.UDP and spoken & {own.address, 0} | (
            spoken if not own.address else set()
        ):
            names = ", ".join(sorted({rule.mapping for rule in item.rules if rule.mapping}))
            message = f"HTTP/3 is spoken at this port, where {names} listens over udp"
            hint = "give one of them another port, or take quic from the mapping with --tls"
            yield Finding(Severity.ERROR, f"listener {item}", message, hint)


def _watched(parts: Iterable[Part]) -> tuple[Watched, ...]:
    """Each once: mappings that send to the same port of a service hold the same tuple."""
    lists = {id(watched): watched for part in parts for watched in part.watched}
    return tuple(chain.from_iterable(lists.values()))


def _unasked_findings(transit: Iterable[TransitRule]) -> Iterator[Finding]:
    """Mappings that only an explicit proxy could carry out."""
    for name in dict.fromkeys(rule.mapping for rule in transit if rule.credentials):
        message = "wants a credential, and there is nobody to present it to: denied"
        hint = "add an explicit proxy (marchproxy listener add explicit --bind ADDR:PORT), or --listen"
        yield Finding(Severity.WARNING, f"mapping {name}", message, hint)


def _shared(listeners: Iterable[Listener]) -> Iterator[tuple[Listener, list[str]]]:
    """Those that mappings of several clusters are at, and the clusters."""
    for listener in listeners:
        if len(listener.rules) > 1:
            owners = {cluster_of(rule.mapping) for rule in listener.rules if rule.mapping}
            if len(owners) > 1:
                yield listener, sorted(owners)


def _mixed_findings(listeners: Iterable[Listener]) -> Iterator[Finding]:
    """Those where it depends on the client whether, and with what, TLS is spoken."""
    mixed = ((item, [""]) for item in listeners if _differs_about_tls(item))
    for listener, ports, _ in spans(mixed):
        message = "its mappings differ about TLS: each client is spoken to as the one that matches it says"
        hint = "give all of them the same --tls"
        yield Finding(Severity.WARNING, f"listener {spanned(listener, ports)}", message, hint)


def _differs_about_tls(listener: Listener) -> bool:
    """Where requests are read, the client's TLS name chooses the certificate, and all of them may differ."""
    named = {rule.tls for rule in listener.rules if rule.leads}
    return len(named) > 1 and (None in named or not listener.reads_http)


def _unread_findings(listeners: Iterable[Listener]) -> Iterator[Finding]:
    """Those where some mappings want HTTP to be read, and others say nothing of HTTP, or pass TLS through."""
    reading = ((item, _not_http(item)) for item in listeners if item.reads_http)
    for listener, ports, names in spans((item, names) for item, names in reading if names):
        message = (
            f"reads HTTP requests, which {', '.join(names)} does not speak of: it decides about requests"
        )
        hint = "give it --protocol http, without --sni, or another listen address"
        yield Finding(Severity.WARNING, f"listener {spanned(listener, ports)}", message, hint)


def _not_http(listener: Listener) -> list[str]:
    every = (rule for rule in listener.rules if rule.mapping and rule.pool)
    return sorted({rule.mapping for rule in every if rule.route is None or rule.sni is not None})


def _plan_findings(
    snapshot: Snapshot, listeners: Iterable[Listener], transit: Iterable[TransitRule]
) -> list[Finding]:
    """What only the whole plan shows."""
    findings = []
    # One cluster shares with nobody, and ten thousand listeners need no look.
    shared = _shared(listeners) if len(snapshot.clusters) > 1 else ()
    for listener, ports, owners in spans(shared):
        message = f"clusters {', '.join(owners)} share it: one's mappings may decide for the other"
        findings.append(Finding(Severity.WARNING, f"listener {spanned(listener, ports)}", message))
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
