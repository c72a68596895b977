"""What a scrape is made of: the daemon at one moment, in words that need nothing of the data plane."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from marchproxy.model.reason import Reason
from marchproxy.telemetry.logs.sink import SinkState

type Counts = tuple[int, int]
"""Packets and bytes."""


@dataclass(frozen=True, slots=True)
class Refused:
    """What one mapping refused for one reason, or audit let through in its stead."""

    reason: Reason
    mapping: str
    """Qualified name, empty where none decided."""
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CarriedFact:
    """What was carried under one mapping, or for one service at one side of flows, by one tier."""

    name: str
    """Qualified."""
    side: str
    """`source` or `destination`; empty: it is a mapping."""
    tier: str
    """`kernel` or `sockets`."""
    flows: int
    sent: Counts
    """By the service; of a mapping, by clients."""
    received: Counts


@dataclass(frozen=True, slots=True)
class BackendFact:
    """A backend that is checked or drained."""

    service: str
    address: str
    port: int
    up: bool | None
    """None: not checked."""
    drained: bool


@dataclass(frozen=True, slots=True)
class LoadFact:
    """Established flows of a backend that is compared with others."""

    service: str
    address: str
    port: int
    flows: int


@dataclass(frozen=True, slots=True)
class DeviceCounts:
    """What the kernel has counted at a network device since it is there."""

    received: Counts
    sent: Counts
    received_errors: int
    sent_errors: int
    received_dropped: int
    sent_dropped: int


@dataclass(frozen=True, slots=True)
class Facts:
    """The daemon at the moment of a scrape."""

    version: str
    tier: str
    """`kernel` or `sockets`."""
    revision: int
    applied: float
    """Seconds since the epoch."""
    apply_seconds: float
    trial_seconds: float
    """Until a revision on trial goes back; 0: none is."""
    listeners: int
    counters: Mapping[str, Mapping[Reason, Counts]]
    """By whom they were counted (`kernel`, `sockets`, `admission`), and by reason."""
    denied: Sequence[Refused]
    """The most packets first."""
    audited: Sequence[Refused]
    """The same of what audit let through: first packets of flows."""
    by_mapping: Sequence[CarriedFact]
    by_service: Sequence[CarriedFact]
    limits: Mapping[str, tuple[int, int, int, int]]
    """Packets and bytes let through, packets and bytes dropped, by the limit's name."""
    tables: Mapping[str, tuple[int, int]]
    """Entries in use, and how many there may be."""
    interfaces: Mapping[str, tuple[str, str]]
    """Role of each interface of the plan, and how it is attached; empty: not at all."""
    devices: Mapping[str, DeviceCounts]
    """Those of the interfaces that there are."""
    names: Mapping[str, tuple[int, str, int]]
    """Addresses of each host name, its state, and addresses that there was no room for."""
    questions: Mapping[str, int]
    """That clients asked the DNS listeners, by what became of them."""
    backends: Sequence[BackendFact]
    loads: Sequence[LoadFact]
    missed: int
    """Flows that there was no room for in what is learned."""
    ejected: Mapping[str, int]
    """Backends that HTTP requests leave out, by service."""
    requests: Mapping[str, int]
    """What was taken care of between HTTP requests and backends."""
    certificates: Mapping[str, float]
    """When each that is used expires, in seconds since the epoch, by qualified name."""
    problems: Mapping[str, int]
    """How many, by component."""
    sinks: Sequence[SinkState]
    lost_events: int
    reloads: int
    failed_reloads: int
