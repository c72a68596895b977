"""Service, mapping and interface: the three things an operator writes; and a cluster's own fields."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from marchproxy.model.actions import DEFAULT_REDIRECT
from marchproxy.model.address import Address, Prefix
from marchproxy.model.collector import Collector
from marchproxy.model.endpoint import Endpoints
from marchproxy.model.ports import Ports
from marchproxy.model.protocol import Protocol
from marchproxy.model.publickey import PublicKey

DEFAULT_PRIORITY = 100
MAX_PRIORITY = 65535
MAX_WEIGHT = 256
MAX_SHARE = 1000
KEEP = "keep"
CUT = "cut"
GRACE = "grace:"
MAX_GRACE = 30 * 86400
"""Seconds that a tunnel may go on after its credential has expired."""
MAX_LISTEN_PORTS = 16384
"""Of one mapping. Over two transports and both families they fill the kernel's table of listeners."""


class Auth(StrEnum):
    """How a client of a service proves who it is."""

    NONE = "none"
    TOKEN = "token"  # noqa: S105  (the name of a method, not a secret)
    JWT = "jwt"


class JwtAlgorithm(StrEnum):
    """What the JWTs of a service are signed with (RFC 7518 section 3.1, RFC 8037)."""

    HS256 = "HS256"
    HS384 = "HS384"
    HS512 = "HS512"
    RS256 = "RS256"
    ES256 = "ES256"
    EDDSA = "EdDSA"

    @property
    def key_type(self) -> str | None:
        """The `kty` of its public keys; None: it is signed with a secret."""
        return _KEY_TYPES.get(self)


_KEY_TYPES = {JwtAlgorithm.RS256: "RSA", JwtAlgorithm.ES256: "EC", JwtAlgorithm.EDDSA: "OKP"}


class WithoutSni(StrEnum):
    """What a mapping with `sni` does with a client that shows no TLS name: no TLS at all, none in it, or an
    encrypted one (ECH)."""

    DENY = "deny"
    ALLOW = "allow"
    ADDRESS = "address"
    """Decide by the destination's address alone."""


class SendProxy(StrEnum):
    """How backends are told who the client is, before its first byte: by HAProxy's PROXY protocol, or not."""

    NONE = "none"
    V1 = "v1"
    V2 = "v2"


class Retry(StrEnum):
    """What a request is sent again for, that does no more when it comes twice (RFC 9110 section 9.2.2)."""

    RESET = "reset"
    """The connection ended before a byte of the answer."""
    TIMEOUT = "timeout"
    """No byte of the answer came in time."""
    BAD_GATEWAY = "502"
    UNAVAILABLE = "503"
    GATEWAY_TIMEOUT = "504"


class LimitPer(StrEnum):
    """What requests are counted by."""

    SOURCE = "source"
    """Each client's address, an IPv6 /64 as one."""
    TOKEN = "token"  # noqa: S105  (the name of a kind, not a secret)
    """Each credential; who presents none is counted by address."""
    MAPPING = "mapping"
    """All of them together."""


class Action(StrEnum):
    """What a mapping does with what it matches."""

    ALLOW = "allow"
    DENY = "deny"


class Role(StrEnum):
    """Which side of the appliance an interface faces."""

    INSIDE = "inside"
    OUTSIDE = "outside"


class Mode(StrEnum):
    """How programs attach to an interface; `auto` chooses per driver (ARCHITECTURE, "Tiers")."""

    AUTO = "auto"
    XDP = "xdp"
    XDP_GENERIC = "xdp-generic"
    TC = "tc"


class Balance(StrEnum):
    """How new flows are spread over the backends of a mapping. All heed weights."""

    MAGLEV = "maglev"
    """By the whole tuple, consistent when backends come and go."""
    ROUND_ROBIN = "round-robin"
    LEAST_CONNECTIONS = "least-connections"
    SOURCE = "source"
    """By the client's address: one client stays with one backend."""


@dataclass(frozen=True, slots=True)
class Service:
    """A named set of addresses: who a client is, or what the backends are."""

    name: str
    addresses: tuple[Address, ...]
    port: int | None = None
    """The port its backends listen on, 1 to 65535; None: the port that was asked for."""
    protocol: Protocol | None = None
    collection: str | None = None
    tags: tuple[str, ...] = ()
    auth: Auth = Auth.NONE
    weight: int = 1
    """Share of new flows of each of its addresses beside other backends, 1 to 256."""
    tls: bool = False
    tls_ca: str = ""
    """With `tls`, certificates in PEM form that vouch for its backends; empty: the system's."""
    tls_cert: str | None = None
    """With `tls`, the certificate of its cluster that its backends are shown; None: they see none."""
    health: str = "none"
    """`none`, `tcp`, `icmp`, `http:PATH`, `https:PATH`; `grpc`, `grpcs`, each also with `:SERVICE`."""
    health_interval: int | None = None
    """Seconds between checks, 1 to 3600; None: the default."""
    health_timeout: int | None = None
    """Seconds until a check has failed, 1 to 60; None: the default."""
    health_rise: int | None = None
    """Checks in a row that must succeed before a backend counts as healthy, 1 to 100; None: the default."""
    health_fall: int | None = None
    """Checks in a row that must fail before it counts as unhealthy, 1 to 100; None: the default."""
    drain: tuple[str, ...] = ()
    """Addresses among its own, in canonical text, that keep their flows and get no new ones."""
    jwt_algorithm: JwtAlgorithm = JwtAlgorithm.HS256
    """The one algorithm that its JWTs may have, with `auth` jwt; the secrets of HS* are no part of this."""
    jwt_audience: str | None = None
    """What `aud` must name; None: its own qualified name, and a JWT without `aud` will do."""
    jwt_issuer: str | None = None
    """What `iss` must be; None: anything."""
    jwt_keys: tuple[PublicKey, ...] = ()
    """With RS256, ES256 and EdDSA, the keys of whoever issues them."""
    jwks_url: str | None = None
    """Where these keys are instead, as a JWK Set: https, or http on loopback."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Mapping:
    """Who may talk to whom. References are service names, `collection:NAME`, `external` or `all`."""

    name: str
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    protocols: tuple[Protocol, ...]
    ports: Ports = ()
    """The destination's ports; empty: the service's own, or any."""
    listen: Endpoints | None = None
    priority: int = DEFAULT_PRIORITY
    """0 to 65535, lower wins; equal priorities: deny before allow, then by name."""
    action: Action = Action.ALLOW
    host: str | None = None
    path_prefix: str | None = None
    path: str | None = None
    """The whole path instead of its beginning."""
    methods: tuple[str, ...] = ()
    """Of HTTP requests, any of these; empty: any at all."""
    headers: tuple[str, ...] = ()
    """What they must bring: `name: value`, `name` for any value, `!name` for none."""
    query: tuple[str, ...] = ()
    """The same of the query's parameters: `name=value`, `name`, `!name`."""
    auth_required: bool = False
    expires: datetime | None = None
    """From this instant (UTC) on the mapping matches nothing."""
    audit: bool = False
    """What it would deny is reported and let through."""
    balance: Balance = Balance.MAGLEV
    on_expiry: str = KEEP
    """What a tunnel does whose credential expires: `keep`, `cut`, or `grace:SECONDS`."""
    sni: bool = False
    """TLS that passes must name the destination."""
    sni_missing: WithoutSni = WithoutSni.DENY
    tls: str | None = None
    """The certificate of its cluster with which TLS is spoken where it listens; None: it is not."""
    proxy_from: tuple[Prefix, ...] = ()
    """Whoever connects from there where it listens says who its client is, by the PROXY protocol."""
    send_proxy: SendProxy = SendProxy.NONE
    connect_timeout: int | None = None
    """Seconds for a backend to be connected to, 1 to 60, TLS included; None: 5. This and what follows is for
    HTTP where requests are read."""
    response_timeout: int | None = None
    """Seconds from a request to the head of its answer, 1 to 3600; None: 60."""
    idle_timeout: int | None = None
    """Seconds that nothing may come within an answer, 1 to 3600; None: 60."""
    retry_on: tuple[Retry, ...] = ()
    """What a request is sent to another backend for; empty: only where a connection cannot be made."""
    retry_budget: int = 20
    """Percent of requests that may be sent again, 1 to 100."""
    eject_after: int = 5
    """Failures in a row after which a backend is left out for a while, 0 to 1000; 0: never."""
    eject_for: int = 10
    """Seconds that it is left out at first, 1 to 3600."""
    eject_most: int = 50
    """Percent of its backends that may be left out at one time, 1 to 100."""
    max_requests: int = 0
    """Requests at one time with each backend, in each worker, 0 to 65535; 0: any number."""
    max_waiting: int = 0
    """Requests that wait for one of these to be over, 0 to 65535."""
    limit_requests: str | None = None
    """How many requests may come, such as `100/s`, `10/m` or `5000/h`; None: any number."""
    limit_burst: int | None = None
    """How many of them at once, 1 to 1000000; None: as many as the number of `limit_requests`."""
    limit_per: LimitPer = LimitPer.SOURCE
    client_ca: str = ""
    """Certificates in PEM form, one of which has to vouch for a client's own; empty: nobody needs one."""
    client_crl: str = ""
    """Revocation lists in PEM form, of whoever issues clients' certificates; empty: nothing is revoked."""
    trace: bool = False
    """Requests that are part of no trace begin one (W3C Trace Context), as sampled."""
    early_data: bool = False
    """Over HTTP/3, GET, HEAD and OPTIONS may come before the client's handshake is complete (0-RTT)."""
    client_names: tuple[str, ...] = ()
    """Patterns, `KIND:NAME`, one of which a client's certificate has to fit; empty: none."""
    weights: tuple[str, ...] = ()
    """`SERVICE=N`, 0 to 1000: the share of each destination, together with its backends; empty: by theirs."""
    sticky: bool = False
    """Browsers stay with one backend, by a cookie."""
    redirect: str | None = None
    """Where HTTP clients are sent instead of to a destination, with `{host}` and `{path}`."""
    redirect_status: int = DEFAULT_REDIRECT
    rewrite_prefix: str | None = None
    """What backends get in place of the path prefix, or of the whole path."""
    rewrite_host: str | None = None
    """What they get as `Host`."""
    request_headers: tuple[str, ...] = ()
    """`set NAME VALUE`, `add NAME VALUE` or `remove NAME`, in the order in which it is done."""
    response_headers: tuple[str, ...] = ()
    mirror: str | None = None
    """`SERVICE` or `SERVICE=PERCENT`: who gets copies of requests; None: nobody."""
    description: str = ""

    @property
    def precedence(self) -> tuple[int, bool, str]:
        """Sort key: the order in which mappings are tried, lowest priority first, then deny before allow."""
        return (self.priority, self.action is Action.ALLOW, self.name)

    @property
    def reads_requests(self) -> tuple[str, ...]:
        """What it looks at that only HTTP requests have, in words."""
        wanted = {
            "host": self.host is not None,
            "path": self.path is not None,
            "path prefix": self.path_prefix is not None,
            "method": bool(self.methods),
            "header": bool(self.headers),
            "query": bool(self.query),
        }
        return tuple([what for what, looks in wanted.items() if looks])

    @property
    def acts(self) -> str:
        """The first field that says what it does with HTTP requests it allows; empty: none does."""
        return next((name for name in _ACTING if getattr(self, name)), "")

    @property
    def mirrored(self) -> tuple[str, int] | None:
        """The service that gets copies, and of how many requests in a hundred; None: none does."""
        if self.mirror is None:
            return None
        name, _, percent = self.mirror.partition("=")
        return name, int(percent or 100)

    @property
    def references(self) -> tuple[str, ...]:
        """All that it names of its cluster, several of them twice."""
        copies = (self.mirrored[0],) if self.mirrored else ()
        return (*self.sources, *self.destinations, *copies)

    @property
    def http3(self) -> bool:
        """Whether HTTP/3 is spoken where it listens: what `quic` means where TLS ends here."""
        spoken = Protocol.HTTPS in self.protocols and Protocol.QUIC in self.protocols
        return self.tls is not None and spoken

    @property
    def grace(self) -> int | None:
        """Seconds that a tunnel goes on after its credential has expired; None: it is not ended for that."""
        if self.on_expiry == KEEP:
            return None
        return 0 if self.on_expiry == CUT else int(self.on_expiry.removeprefix(GRACE))


_ACTING = ("sticky", "redirect", "rewrite_prefix", "rewrite_host", "request_headers", "response_headers")


@dataclass(frozen=True, slots=True)
class Interface:
    """A network device the data plane attaches to."""

    name: str
    role: Role
    mode: Mode = Mode.AUTO
    masquerade: bool = False
    """What leaves by it carries the appliance's own address as its source."""
    nat_addresses: tuple[str, ...] = ()
    """With masquerade: the source addresses to use, in canonical text; empty: the one that routing gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFields:
    """What a cluster has beside its name and what it holds."""

    audit: bool = False
    """What its mappings would deny, or deny for want of one, is reported and let through."""
    syslog: Collector | None = None
    """Where the classes below go as RFC 5424 messages; None: nowhere."""
    syslog_ca: str = ""
    """Certificates in PEM form that vouch for a syslog server on TLS; empty: the system's."""
    log_auth: bool = False
    """What admission let in, and refused."""
    log_netflow: bool = False
    """Beginnings and ends of flows, and what was denied."""
    log_access: bool = False
    """Every HTTP request that is read."""
    log_debug: bool = False
    """Backends that come and go; the cluster `default` also gets what the daemon logs."""
    ipfix: Collector | None = None
    """Where flow records go by IPFIX; None: nowhere."""
    log_http: str | None = None
    """Where flow records and refusals go as JSON in batches; None: nowhere."""
    access_log: bool = False
    """HTTP requests go as JSON lines to a file of this machine, whatever the classes above say."""


@dataclass(frozen=True, slots=True)
class ClusterHead(ClusterFields):
    """A cluster's own fields, without the services and mappings that it holds."""

    name: str
