"""The plan: a snapshot compiled into what the tiers carry out. Values only; `compile.py` says how they arise.

The plan is in the terms of policy (prefixes, backends, ordered rules). Turning it into map entries is
`dataplane/kernel/tables.py`, opening sockets for it `dataplane/proxy/`.
"""

from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum, auto
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import NamedTuple

from marchproxy.model.address import IPAddress, Prefix
from marchproxy.model.appliance import DEFAULT_SETTINGS, Limit, Settings
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.entities import (
    MAX_PRIORITY,
    Action,
    Balance,
    Interface,
    LimitPer,
    SendProxy,
    WithoutSni,
)
from marchproxy.model.ports import Ports
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.actions import Actions
from marchproxy.policy.blocks import NOTHING_BLOCKED, Blocks
from marchproxy.policy.checks import Watched
from marchproxy.policy.conditions import Conditions

LAST_PRIORITY = MAX_PRIORITY + 1
"""Of rules that come from no mapping, behind all that do."""

ANYONE = "*"
"""In `Rule.sources`: every source address."""

WILDCARDS: MappingABC[int, IPAddress] = MappingProxyType({4: IPv4Address(0), 6: IPv6Address(0)})
"""IP version to the listen address that means every local address."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One address and port that new flows may be sent to."""

    address: IPAddress
    port: int
    service: str
    """Qualified name, `cluster/service`."""
    weight: int = 1
    tls: str = ""
    """Where HTTP is read, the name or address that it proves in TLS; empty: it speaks in the clear."""
    tls_ca: str = ""
    """Certificates in PEM form that vouch for it; empty: the system's."""
    tls_cert: str = ""
    """The qualified name of the certificate that it is shown; empty: none."""
    http2: bool = False
    """It speaks HTTP/2 only, whatever the rule says."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Pool:
    """The backends of a rule. Rules with equal backends share one object.

    Weakly referable, so that the compiler can remember pools for as long as some plan uses them.
    """

    backends: tuple[Backend, ...]
    """Sorted by address and port, those included that take no new flows: they still carry old ones, and what
    policy says about them does not change with their health."""
    table: tuple[int, ...]
    """Indexes into `backends` of those that take new flows, as often as their weights want: in the order of
    turns for ROUND_ROBIN, else a Maglev table. Empty: all of them are down or drained."""

    idle: tuple[Backend, ...] = ()
    """Those of `backends` that take no new flows."""

    @property
    def taking(self) -> tuple[Backend, ...]:
        """The backends that new flows go to."""
        return (
            tuple([each for each in self.backends if each not in self.idle]) if self.idle else self.backends
        )


class Route(NamedTuple):
    """What a rule wants of an HTTP request; `routes.py` says which rule a request takes."""

    host: str = ""
    """In lower case; `*.NAME` for every name below; empty: any."""
    path: str = ""
    """A prefix in whole segments, without `/` at its end; empty: any."""
    exact: bool = False
    """It is the whole path, and may end with `/`."""
    conditions: Conditions | None = None
    """What else; None: nothing."""


class Http2(Enum):
    """Which requests go to backends by HTTP/2."""

    NEVER = auto()
    CALLS = auto()
    """Those of gRPC; all others go by HTTP/1.1."""
    ALWAYS = auto()


@dataclass(frozen=True, slots=True)
class RequestLimit:
    """How many requests may come."""

    rate: float
    """A second."""
    burst: int
    per: LimitPer


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Which certificates of clients are taken."""

    ca: str
    """PEM."""
    crl: str
    """PEM; empty: nothing is revoked."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where copies of requests go."""

    pool: Pool
    percent: int
    """Of requests, 1 to 100."""


@dataclass(frozen=True, slots=True)
class Handling:
    """How requests are carried that a rule lets through: the fields of the mapping. Times are in seconds;
    None: as `AdmissionLimits` has it."""

    connect: float | None = None
    response: float | None = None
    idle: float | None = None
    retry_on: frozenset[str] = frozenset()
    """Of `entities.Retry`."""
    retry_budget: float = 0.2
    """Of requests, 0 to 1."""
    eject_after: int = 5
    eject_for: float = 10.0
    eject_most: float = 0.5
    """Of backends, 0 to 1."""
    max_requests: int = 0
    max_waiting: int = 0
    limit: RequestLimit | None = None
    client: ClientTls | None = None
    client_names: tuple[str, ...] = ()
    trace: bool = False
    early_data: bool = False
    mirror: Mirror | None = None


DEFAULT_HANDLING = Handling()


@dataclass(frozen=True, slots=True)
class Rule:
    """One mapping at one listener; two rules if its sources are `external` *and* services."""

    mapping: str
    """Qualified name, `cluster/mapping`; empty for what audit lets through for want of a mapping."""
    priority: int
    sources: tuple[str, ...]
    """Keys of `Plan.sources`, or `(ANYONE,)`."""
    excluded: tuple[str, ...]
    """Keys of `Plan.sources` that do not match although `sources` do: how `external` is said."""
    pool: Pool | None
    """Where allowed flows go; None where `reason` refuses, but for want of backends that take any, and where
    a redirect leads elsewhere."""
    reason: Reason
    """FORWARDED, or why what matches is refused: DENY_MAPPING, NO_BACKEND, AUTH_MISSING, SNI_MISSING,
    NOT_CARRIED."""
    expires: datetime | None = None
    action: Action = Action.ALLOW
    """What the mapping says, which `reason` may overrule: an ALLOW that cannot be carried out refuses."""
    audit: bool = False
    """What it refuses is reported for `reason` and sent to `pool` all the same."""
    balance: Balance = Balance.MAGLEV
    credentials: tuple[str, ...] = ()
    """With AUTH_MISSING: qualified names of the services whose credential lets a connection in."""
    grace: int | None = None
    """Seconds that a connection goes on after its credential has expired; None: it is not ended for that."""
    sni: WithoutSni | None = None
    """TLS has to name a host of the service that it goes to; and what becomes of who names none. None: nobody
    looks. With SNI_MISSING or AUTH_MISSING, because no tier can tell."""
    tls: str | None = None
    """The qualified name of the certificate with which TLS is spoken first of all; None: it is not."""
    proxy_from: tuple[Prefix, ...] = ()
    """Who connects from there says by the PROXY protocol who its client is: rules are asked about that."""
    send_proxy: SendProxy = SendProxy.NONE
    """How backends are told who the client is."""
    route: Route | None = None
    """Its protocols are HTTP's; None: they are not, or what passes is to stay as it is."""
    quic: bool = False
    """What it lets through over UDP is QUIC, and kept to its backend by connection ID."""
    http3: bool = False
    """It has HTTP/3 spoken over UDP at its listener, with `tls`."""
    handling: Handling = DEFAULT_HANDLING
    """What becomes of its requests; another than the default wants them to be read."""
    http2: Http2 = Http2.NEVER
    actions: Actions | None = None
    """What it does with requests beside passing them on; None: nothing."""

    @property
    def leads(self) -> bool:
        """Whether what matches has somewhere to go: to a backend, or elsewhere by a redirect."""
        return self.pool is not None or (self.actions is not None and bool(self.actions.redirect))

    @property
    def is_admitted(self) -> bool:
        """Whether connections must be understood before they may go to the pool."""
        asks = bool(self.credentials) or self.sni is not None or self.tls is not None
        asks = asks or bool(self.proxy_from) or self.send_proxy is not SendProxy.NONE
        return (
            self.is_routed
            or self.actions is not None
            or (self.pool is not None and (asks or self._is_handled))
        )

    @property
    def is_routed(self) -> bool:
        """Whether it matches requests and not connections."""
        return self.route is not None and self.route != ANY_ROUTE

    @property
    def reads_http(self) -> bool:
        """Whether it needs requests to be read."""
        asks = bool(self.credentials) or self.tls is not None or self._is_handled
        acts = self.actions is not None
        return self.route is not None and (self.is_routed or acts or (self.pool is not None and asks))

    @property
    def _is_handled(self) -> bool:
        # In other processes the default is an equal object, and here the same one for almost all rules.
        return self.route is not None and not (
            self.handling is DEFAULT_HANDLING or self.handling == DEFAULT_HANDLING
        )


ICMP = 1
"""The protocol number that stands for ICMP and ICMPv6 echo alike."""


def protocol_number(transport: Transport | None) -> int:
    """The number in `Match.protocol`: IANA's, and `ICMP` for what has no ports."""
    return ICMP if transport is None else transport.number


class Match(NamedTuple):
    """A protocol and ports of transit traffic."""

    protocol: int
    """6, 17 or `ICMP`."""
    ports: Ports = ()
    """The destination's, in order; empty: any, and always for ICMP."""


ANY_ROUTE = Route()


@dataclass(frozen=True, slots=True)
class TransitRule:
    """A mapping without a listen address: traffic that passes through the appliance to where it asked for."""

    mapping: str
    """Qualified name; empty for what audit lets through for want of a mapping."""
    priority: int
    sources: tuple[str, ...]
    """As of `Rule`."""
    excluded: tuple[str, ...]
    destinations: tuple[str, ...]
    """Keys of `Plan.sources`, or `(ANYONE,)`."""
    excluded_destinations: tuple[str, ...]
    matches: tuple[Match, ...]
    """In order; at least one."""
    reason: Reason
    """FORWARDED, or why what matches is refused."""
    expires: datetime | None = None
    action: Action = Action.ALLOW
    audit: bool = False
    """What it refuses is reported for `reason` and let through."""
    credentials: tuple[str, ...] = ()
    """With AUTH_MISSING: qualified names of the services whose credential lets a tunnel through. A packet
    cannot present any."""
    grace: int | None = None
    """As of `Rule`, of tunnels."""
    sni: WithoutSni | None = None
    """The same."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A limit, and its services with their prefixes."""

    limit: Limit
    sources: tuple[tuple[str, tuple[Prefix, ...]], ...] = ()
    """By qualified service name; empty where the limit names none, and so holds for every address."""


def precedence(rule: Rule | TransitRule) -> tuple[int, bool, str, bool]:
    """First match wins: by priority, deny before allow, by name; of one mapping's rules `external` first."""
    return (rule.priority, rule.action is not Action.DENY, rule.mapping, not rule.excluded)


class ListenerKey(NamedTuple):
    """What tells listeners apart. Integers, because addresses take ten times as long to hash and compare."""

    transport: int
    """IANA number."""
    version: int
    """4 or 6."""
    address: int
    port: int


def listener_key(transport: Transport, address: IPAddress, port: int) -> ListenerKey:
    """The key of the listener at that address, port and transport."""
    return ListenerKey(transport.number, address.version, int(address), port)


@dataclass(frozen=True, slots=True)
class Listener:
    """An address and port with its rules in first-match order."""

    address: IPAddress
    """`0.0.0.0` or `::`: every local address of that family."""
    port: int
    transport: Transport
    rules: tuple[Rule, ...]

    @property
    def key(self) -> ListenerKey:
        """What no other listener of the plan has."""
        return listener_key(self.transport, self.address, self.port)

    @property
    def reads_http(self) -> bool:
        """Whether what comes to it is taken for HTTP requests, each of which is decided by itself."""
        return any(rule.reads_http for rule in self.rules)

    def __str__(self) -> str:
        return f"{Endpoint(self.address, self.port)}/{self.transport}"


class Severity(StrEnum):
    """How much a finding matters: an error keeps the plan from being applied."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something `check` tells the operator about the snapshot."""

    severity: Severity
    subject: str
    """What it is about, such as `mapping web`."""
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The compiled snapshot."""

    listeners: tuple[Listener, ...] = ()
    """Sorted by transport, family, address, port."""
    admitted: frozenset[ListenerKey] = frozenset()
    """Those of `listeners` whose connections are understood before they are let in: no tier carries them."""
    transit: tuple[TransitRule, ...] = ()
    """In first-match order."""
    sources: MappingABC[str, tuple[Prefix, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Qualified service name to its prefixes, for every service that some rule names as a source or some
    transit rule as a destination."""
    management: frozenset[int] = frozenset()
    """TCP ports at the appliance's own addresses that reach the host, whatever blocks or listeners say."""
    blocks: Blocks = NOTHING_BLOCKED
    """What nothing may come from or go to, whatever the rules say."""
    interfaces: tuple[Interface, ...] = ()
    limits: tuple[RateLimit, ...] = ()
    """Sorted by name."""
    settings: Settings = DEFAULT_SETTINGS
    names: frozenset[str] = frozenset()
    """Host names to resolve, and wildcards (`*.example.com`) to learn from what clients are answered."""
    named: MappingABC[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Qualified service name to its host names and wildcards, for every service that has any."""
    dns: tuple[Endpoint, ...] = ()
    """Where the appliance answers inside clients about names."""
    explicit: tuple[Endpoint, ...] = ()
    """Where the appliance is an HTTP and SOCKS5 proxy."""
    tls: MappingABC[Endpoint, str] = field(default_factory=lambda: MappingProxyType({}))
    """Those of `explicit` where TLS is spoken, with the qualified names of certificates."""
    introduced: MappingABC[Endpoint, tuple[Prefix, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Those of `explicit` where these say, by the PROXY protocol, who the client is."""
    certificates: frozenset[str] = frozenset()
    """Qualified names of all certificates that listeners want, or that backends are shown."""
    http3: frozenset[ListenerKey] = frozenset()
    """Those of `admitted` where HTTP/3 is spoken, too, over UDP at the same address and port. It has no rules
    of its own: requests are decided by those of the listener, whatever brought them."""
    watched: tuple[Watched, ...] = ()
    """Backends that are checked or drained, each once."""
    findings: tuple[Finding, ...] = ()

    @property
    def carried(self) -> tuple[Listener, ...]:
        """The listeners that a tier carries."""
        if not self.admitted:
            return self.listeners
        return tuple([item for item in self.listeners if item.key not in self.admitted])
