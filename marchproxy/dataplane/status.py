"""What the daemon says about itself: one value that `status`, `/healthz` and `/metrics` are views of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from marchproxy.dataplane.records import (
    BackendLoad,
    BackendState,
    Denials,
    InterfaceState,
    LimitState,
    TableFill,
    Traffic,
)
from marchproxy.model.address import IPAddress
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Listener
from marchproxy.store.trial import Moment, Trial
from marchproxy.telemetry.logs.sink import SinkState

COMPONENTS = (
    *("policy", "tier", "admission", "names", "dns", "health", "credentials", "certificates", "logs"),
    "metrics",
)
"""What can be wrong: taking over a plan, carrying it out, admitting connections, resolving its names,
answering clients about names, backends, knowing who may, proving who we are, delivering logs, telling
others."""

MOST_DENIALS = 1_000


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong right now."""

    component: str
    """One of `COMPONENTS`."""
    message: str

    def __str__(self) -> str:
        return f"{self.component}: {self.message}"


@dataclass(frozen=True, slots=True)
class Applied:
    """The revision that the data plane carries out."""

    number: int = 0
    """0: none yet."""
    sha256: str = ""
    at: float = 0.0
    """When it was applied, or applied again for new names or an expiry, in seconds since the epoch."""
    took: float = 0.0
    """Seconds from reading the store to the last change in the data plane."""


@dataclass(frozen=True, slots=True)
class AddressState:
    """An address of a host name."""

    address: IPAddress
    current: bool
    """False: it lingers."""
    left: float | None
    """Seconds until it is no longer current, or no longer there; None: for as long as answers have it."""


@dataclass(frozen=True, slots=True)
class NameState:
    """A host name or wildcard of the plan, with all there is to know about it."""

    name: str
    state: str
    """`resolved`, `failing`, `waiting` (no answer yet) or, for a wildcard, `learning`."""
    addresses: tuple[AddressState, ...] = ()
    error: str = ""
    since: float = 0.0
    """When it last resolved, or since when it fails, in seconds since the epoch; 0: not known."""
    ttl: float = 0.0
    """Of the last good answer, in seconds."""
    refused: Mapping[IPAddress, str] = field(default_factory=dict)
    """Addresses that it may not resolve to, and what they are."""
    unlearned: int = 0
    """Addresses that there was no room for."""


@dataclass(frozen=True, slots=True)
class DnsListenerState:
    """A DNS listener, and the interfaces whose clients reach it."""

    bind: Endpoint
    interfaces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DnsState:
    """What the DNS listeners do."""

    listeners: Sequence[DnsListenerState] = ()
    questions: Mapping[str, int] = field(default_factory=dict)
    """Since the start, by what became of them."""
    rebinding: Mapping[str, str] = field(default_factory=dict)
    """The last names that were answered with addresses that they may not have, and which."""


@dataclass(frozen=True, slots=True)
class CertificateState:
    """A certificate that listeners want."""

    name: str
    """Qualified."""
    hosts: tuple[str, ...]
    issuer: str
    fingerprint: str
    """SHA-256 in hexadecimal."""
    expires: float
    """Seconds since the epoch."""
    usable: bool
    """Whether TLS is spoken with it, expired or not."""


@dataclass(frozen=True, slots=True)
class Status:
    """The daemon at one moment."""

    version: str
    pid: int
    started: float
    """Seconds since the epoch."""
    now: float
    applied: Applied
    tier: str
    tier_reason: str
    """Why this tier and not the other."""
    interfaces: Sequence[InterfaceState] = ()
    listeners: Sequence[Listener] = ()
    explicit: Sequence[Endpoint] = ()
    """Where it is an HTTP and SOCKS5 proxy."""
    counters: Mapping[Reason, Traffic] = field(default_factory=dict)
    admitted: Mapping[Reason, Traffic] = field(default_factory=dict)
    """What admission has counted of it; the rest is the tier's."""
    denials: Sequence[Denials] = ()
    limits: Sequence[LimitState] = ()
    tables: Sequence[TableFill] = ()
    lost_events: int = 0
    reloads: int = 0
    failed_reloads: int = 0
    names: Sequence[NameState] = ()
    dns: DnsState = field(default_factory=DnsState)
    trial: Trial | None = None
    """The revision that waits to be confirmed."""
    backends: Sequence[BackendState] = ()
    """Those that are checked or drained, or that requests leave out."""
    loads: Sequence[BackendLoad] = ()
    """Of those that new flows go to by fewest connections."""
    missed: int = 0
    """Flows that audit let through, and that there was no room for in what is learned."""
    requests: Mapping[str, int] = field(default_factory=dict)
    """What was taken care of between HTTP requests and backends, by `http.counts`."""
    certificates: Sequence[CertificateState] = ()
    sinks: Sequence[SinkState] = ()
    """Where logs go."""
    problems: Sequence[Problem] = ()
    warnings: Sequence[Problem] = ()
    """What will be wrong one day."""

    def most_denied(self, *, audited: bool) -> Sequence[Denials]:
        """What was refused (or with `audited` let through all the same), the most packets first.

        At most `MOST_DENIALS`: documents stay small whatever is refused.
        """
        return self.all_denied(audited=audited)[:MOST_DENIALS]

    def all_denied(self, *, audited: bool) -> Sequence[Denials]:
        """The same, all of it: some ten thousand rows where mappings and reasons are many."""
        found = [denials for denials in self.denials if denials.audited is audited]
        found.sort(key=lambda denials: (-denials.traffic.packets, denials.reason, denials.mapping))
        return found

    @property
    def carried(self) -> Mapping[Reason, Traffic]:
        """What the tier has counted."""
        found = dict(self.counters)
        for reason, own in self.admitted.items():
            both = found.get(reason, own)
            found[reason] = Traffic(both.packets - own.packets, both.bytes - own.bytes)
        return found

    @property
    def trial_remaining(self) -> float:
        """Seconds until the revision on trial goes back; 0 where there is none, or it is due."""
        return self.trial.remaining(Moment.now()) if self.trial else 0.0

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems
