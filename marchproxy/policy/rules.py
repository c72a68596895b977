"""One mapping compiled: the rules it comes to, and what the operator should know about it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from marchproxy.model.address import IPAddress
from marchproxy.model.endpoint import Endpoints
from marchproxy.model.entities import Action, Auth, Mapping, WithoutSni
from marchproxy.model.management import MANAGEMENT_PORTS
from marchproxy.model.names import qualify
from marchproxy.model.ports import PortRange
from marchproxy.model.protocol import OVER_HTTP, WITH_HTTP3, Protocol, Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.actions import Actions
from marchproxy.policy.checks import Watched
from marchproxy.policy.conditions import Conditions
from marchproxy.policy.directory import Audience, Directory, Referents
from marchproxy.policy.handling import handling_of
from marchproxy.policy.mirrors import NO_COPIES, Copies, copies_of
from marchproxy.policy.paths import canonical_prefix, canonical_whole
from marchproxy.policy.plan import (
    DEFAULT_HANDLING,
    WILDCARDS,
    Finding,
    Handling,
    Http2,
    ListenerKey,
    Mirror,
    Pool,
    Route,
    Rule,
    Severity,
    TransitRule,
    listener_key,
)
from marchproxy.policy.pools import Choice, PoolCache, choose_backends, may_keep_port
from marchproxy.policy.refusals import Refusal, credential_wanted, refusal_of
from marchproxy.policy.remarks import (
    Backing,
    backend_findings,
    listen_findings,
    loop_findings,
    redirect_findings,
    reference_findings,
)
from marchproxy.policy.restrictions import Restriction
from marchproxy.policy.transit import compile_transit

type Placed = tuple[ListenerKey, Rule]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one mapping contributes to the plan."""

    mapping: Mapping
    rules: tuple[Placed, ...] = ()
    """At the listeners that it opens."""
    joining: tuple[Placed, ...] = ()
    """At listeners that only others may open: those of `*` in a family that it has no backend of."""
    transit: tuple[TransitRule, ...] = ()
    """If it does not listen."""
    restriction: Restriction | None = None
    """What it is at the listeners of others, if it denies and does not listen."""
    sources: tuple[str, ...] = ()
    """Every service whose prefixes its rules need: the same tuple object where mappings name the same."""
    destinations: tuple[str, ...] = ()
    """The same for the destinations of transit."""
    hosts: tuple[str, ...] = ()
    """Host names that may bring backends."""
    watched: tuple[tuple[Watched, ...], ...] = ()
    """Backends that are checked or drained, by service and port."""
    findings: tuple[Finding, ...] = ()


class Terms(NamedTuple):
    """What holds for all mappings of a cluster."""

    audit: bool = False
    """What they refuse is reported and let through."""
    management: frozenset[int] = MANAGEMENT_PORTS
    """TCP ports that no listener may take."""


class _Reading(NamedTuple):
    """A mapping, and what its references stand for."""

    mapping: Mapping
    audit: bool
    cluster: str
    destinations: Referents
    audiences: tuple[Audience, ...]
    """One for each rule."""
    sources: tuple[str, ...]
    """Every service that the audiences name."""
    holders: tuple[str, ...]
    """The services named as a source that have a credential."""
    copies: Copies = NO_COPIES

    @property
    def name(self) -> str:
        """Qualified."""
        return qualify(self.cluster, self.mapping.name)

    @property
    def transports(self) -> list[Transport]:
        """What carries its protocols, ICMP aside; HTTP/3 has no rules of its own."""
        if self.mapping.http3:
            return [Transport.TCP]
        carried = {protocol.transport for protocol in self.mapping.protocols}
        return [transport for transport in Transport if transport in carried]

    @property
    def credentials(self) -> tuple[str, ...]:
        """Every service it names, at either end, that has a credential."""
        return tuple(sorted({*self.holders, *_holders(self.destinations)}))

    @property
    def sni(self) -> WithoutSni | None:
        """As of `Rule`."""
        wanted = self.mapping.sni and self.mapping.action is Action.ALLOW
        return self.mapping.sni_missing if wanted else None

    @property
    def tls(self) -> str | None:
        """As of `Rule`."""
        wanted = self.mapping.tls if self.mapping.action is Action.ALLOW else None
        return qualify(self.cluster, wanted) if wanted else None

    @property
    def route(self) -> Route | None:
        """As of `Rule`."""
        mapping = self.mapping
        over_http = set(mapping.protocols) <= (WITH_HTTP3 if mapping.http3 else OVER_HTTP)
        if mapping.listen is None or mapping.sni or not over_http:
            return None
        exact = mapping.path is not None
        path = canonical_whole(mapping.path) if mapping.path else canonical_prefix(mapping.path_prefix or "")
        conditions = Conditions.of(mapping.methods, mapping.headers, mapping.query)
        return Route(mapping.host or "", path, exact, conditions)

    @property
    def handling(self) -> Handling:
        """As of `Rule`; the default is one object."""
        return handling_of(self.mapping) if self.mapping.action is Action.ALLOW else DEFAULT_HANDLING

    @property
    def http2(self) -> Http2:
        """As of `Rule`."""
        protocols = self.mapping.protocols
        if Protocol.GRPC not in protocols:
            return Http2.NEVER
        return Http2.ALWAYS if protocols == (Protocol.GRPC,) else Http2.CALLS

    def refusal(self) -> Refusal | None:
        """What it says itself, whatever its destinations want."""
        own = refusal_of(self.mapping)
        return own or (credential_wanted(self.credentials) if self.mapping.auth_required else None)

    def rules(
        self,
        reason: Reason,
        pool: Pool | None = None,
        *,
        audit: bool = False,
        credentials: tuple[str, ...] = (),
        mirror: Mirror | None = None,
    ) -> list[Rule]:
        """Its rules at a listener."""
        name, mapping, handling = self.name, self.mapping, self.handling
        handling = replace(handling, mirror=mirror) if mirror else handling
        actions = Actions.of(mapping) if mapping.acts else None
        return [
            Rule(
                mapping=name,
                priority=mapping.priority,
                sources=included,
                excluded=excluded,
                pool=pool,
                reason=reason,
                expires=mapping.expires,
                action=mapping.action,
                audit=audit,
                balance=mapping.balance,
                credentials=credentials,
                grace=mapping.grace,
                sni=self.sni,
                tls=self.tls,
                proxy_from=mapping.proxy_from,
                send_proxy=mapping.send_proxy,
                route=self.route,
                quic=Protocol.QUIC in mapping.protocols and not mapping.http3,
                http3=mapping.http3 and mapping.action is Action.ALLOW,
                handling=handling,
                http2=self.http2,
                actions=actions,
            )
            for included, excluded in self.audiences
        ]


def compile_mapping(mapping: Mapping, directory: Directory, pools: PoolCache, terms: Terms) -> Part:
    """Compile one mapping. Raises nothing: what is wrong with it is among its findings."""
    sources = directory.resolve(mapping.sources)
    destinations = directory.resolve(mapping.destinations)
    reading = _Reading(
        mapping=mapping,
        audit=terms.audit or mapping.audit,
        cluster=directory.cluster.name,
        destinations=destinations,
        audiences=directory.audiences(sources),
        sources=directory.named_by(sources),
        holders=_holders(sources),
    )
    subject = f"mapping {reading.name}"
    findings = [*reference_findings(subject, sources), *reference_findings(subject, destinations)]
    findings += _sni_findings(subject, reading)
    if mapping.listen is not None:
        findings += listen_findings(subject, mapping, mapping.listen, terms.management)
        copies = copies_of(mapping, mapping.listen, directory, pools, subject)
        findings += copies.findings
        return _listen(reading._replace(copies=copies), mapping.listen, pools, subject, findings)
    return _pass_through(reading, directory, subject, findings)


def _sni_findings(subject: str, reading: _Reading) -> Iterator[Finding]:
    """A TLS name that can never be right."""
    entries, wide = reading.destinations.entries, reading.destinations
    if reading.sni and not (wide.everyone or wide.external or any(entry.hosts for entry in entries)):
        message = "looks at the TLS name, and none of its destinations has a host name: denied"
        hint = "give the service the name: marchproxy service set NAME --address HOST"
        yield Finding(Severity.WARNING, subject, message, hint)


def _pass_through(reading: _Reading, directory: Directory, subject: str, findings: list[Finding]) -> Part:
    mapping, destinations = reading.mapping, reading.destinations
    own = reading.refusal()
    transit = compile_transit(
        reading.name,
        mapping,
        reading.audiences,
        destinations,
        directory,
        own,
        reading.holders,
        audit=reading.audit,
    )
    if own and own.surprise:
        findings.append(Finding(Severity.WARNING, subject, own.surprise, own.hint))
    return Part(
        mapping=mapping,
        transit=transit.rules,
        restriction=_restrict(reading, own.reason) if own and mapping.action is Action.DENY else None,
        sources=reading.sources if transit.rules else (),
        destinations=transit.destinations,
        findings=tuple(findings),
    )


class _Served(NamedTuple):
    """What some of the ports lead to that a mapping listens on."""

    ports: PortRange
    choice: Choice
    backing: Backing
    problems: Sequence[Finding] = ()


def _serve(
    mapping: Mapping, listen: Endpoints, destinations: Referents, pools: PoolCache, subject: str
) -> Iterator[_Served]:
    apart = may_keep_port(mapping, destinations)
    for ports in [PortRange(port, port) for port in listen.ports] if apart else [listen.ports]:
        choice = choose_backends(mapping, ports.first, destinations)
        backing = [
            (at, pools.pool(choice.members, at.version, mapping.balance, choice.shares))
            for at in _places(listen)
        ]
        problems = [
            *backend_findings(subject, mapping, choice, backing),
            *loop_findings(subject, listen, choice, backing),
        ]
        yield _Served(ports, choice, backing, problems)


def _places(listen: Endpoints) -> Iterable[IPAddress]:
    return WILDCARDS.values() if listen.address is None else (listen.address,)


def _listen(
    reading: _Reading, listen: Endpoints, pools: PoolCache, subject: str, findings: list[Finding]
) -> Part:
    mapping = reading.mapping
    refusal = _refusal(reading)
    credentials = refusal.credentials if refusal else ()
    audit = reading.audit and refusal is not None
    # Under audit a mapping that allows is carried out, whatever keeps it from being so otherwise.
    served: Sequence[_Served] = ()
    asks = bool(credentials) or (refusal is not None and refusal.reason is Reason.SNI_MISSING)
    if mapping.redirect is not None:
        findings += redirect_findings(subject, mapping)
    elif refusal is None or asks or (audit and mapping.action is Action.ALLOW):
        served = list(_serve(mapping, listen, reading.destinations, pools, subject))
    problems = dict.fromkeys(problem for each in served for problem in each.problems)
    hopeless = any(problem.severity is Severity.ERROR for problem in problems)
    if hopeless and refusal and not asks:
        # Audit must not be what makes a plan impossible: there is no harm in going on to refuse.
        served, problems = (), {}
    served = served or [_Served(listen.ports, Choice(), [(at, None) for at in _places(listen)])]
    findings += problems
    if refusal and refusal.surprise:
        findings.append(Finding(Severity.WARNING, subject, refusal.surprise, refusal.hint))
    if credentials and Transport.UDP in reading.transports:
        message = "wants a credential, which cannot be asked for over udp: denied there"
        findings.append(Finding(Severity.WARNING, subject, message))
    opened, joined = _place(reading, served, refusal, audit=audit)
    return Part(
        mapping=mapping,
        rules=opened,
        joining=joined,
        sources=reading.sources,
        hosts=served[0].choice.hosts + reading.copies.hosts,
        watched=tuple([watched for each in served for watched in each.choice.watched])
        + reading.copies.watched,
        findings=tuple(findings),
    )


def _place(
    reading: _Reading, served: Iterable[_Served], refusal: Refusal | None, *, audit: bool
) -> tuple[tuple[Placed, ...], tuple[Placed, ...]]:
    """Its rules where it opens listeners, and where only others may open one."""
    opened: list[Placed] = []
    joined: list[Placed] = []
    credentials = refusal.credentials if refusal else ()
    for ports, _, backing, _ in served:
        backed = any(pool for _, pool in backing)
        for address, pool in backing:
            leads = reading.mapping.redirect is not None or (pool and pool.table)
            able = Reason.FORWARDED if leads else Reason.NO_BACKEND
            reason = refusal.reason if refusal else able
            mirror = reading.copies.mirrors.get(address.version)
            rules = reading.rules(reason, pool, audit=audit, credentials=credentials, mirror=mirror)
            keys = [listener_key(each, address, port) for each in reading.transports for port in ports]
            (joined if backed and not pool else opened).extend(
                [(key, rule) for rule in rules for key in keys]
            )
    return tuple(opened), tuple(joined)


def _restrict(reading: _Reading, reason: Reason) -> Restriction:
    destinations = reading.destinations
    return Restriction(
        cluster=reading.cluster,
        mapping=reading.mapping,
        services=None if destinations.everyone else destinations.names,
        rules=tuple(reading.rules(reason, audit=reading.audit)),
    )


def _refusal(reading: _Reading) -> Refusal | None:
    """Why a mapping refuses what it matches at its listeners, where backends of all kinds share a pool."""
    own = reading.refusal()
    if own is None and _holders(reading.destinations):
        return credential_wanted(reading.credentials)
    return own or (Refusal(Reason.SNI_MISSING) if reading.sni else None)


def _holders(referents: Referents) -> tuple[str, ...]:
    """Those of the services named that have a credential."""
    return tuple([entry.name for entry in referents.entries if entry.service.auth is not Auth.NONE])
