"""The plan: a snapshot compiled into what the tiers carry out. Values only; see `compile.py` for how they come about.

The plan is in the terms of policy (prefixes, backends, ordered rules). Turning it into map entries is
`dataplane/kernel/tables.py`, opening sockets for it `dataplane/proxy/`.
"""

from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from marchproxy.model.address import IPAddress, Prefix
from marchproxy.model.entities import Interface
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason

ANYONE = "*"
"""In `Rule.sources`: every source address."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One address and port that new flows may be sent to."""

    address: IPAddress
    port: int
    service: str
    """Qualified name, `cluster/service`."""
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Pool:
    """The backends of one rule, sorted by address and port. `table` is the Maglev table: indexes into `backends`."""

    backends: tuple[Backend, ...]
    table: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One mapping at one listener."""

    mapping: str
    """Qualified name, `cluster/mapping`."""
    priority: int
    sources: tuple[str, ...]
    """Keys of `Plan.sources`, or `(ANYONE,)`."""
    excluded: tuple[str, ...]
    """Keys of `Plan.sources` that do not match although `sources` do: how `external` is said."""
    pool: Pool | None
    """Where allowed flows go; None where `reason` refuses."""
    reason: Reason
    """FORWARDED, or why what matches is refused: DENY_MAPPING, NO_BACKEND, AUTH_MISSING, NOT_CARRIED."""
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """An address and port with its rules in first-match order."""

    address: IPAddress
    """`0.0.0.0` or `::`: every local address of that family."""
    port: int
    transport: Transport
    rules: tuple[Rule, ...]


class Severity(StrEnum):
    """How much a finding matters: an error keeps the plan from being applied."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something `check` tells the operator about the snapshot."""

    severity: Severity
    subject: str
    """What it is about, such as `mapping default/web`."""
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The compiled snapshot."""

    listeners: tuple[Listener, ...] = ()
    """Sorted by transport, family, address, port."""
    sources: MappingABC[str, tuple[Prefix, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Qualified service name to its prefixes, for every service that some rule names as a source."""
    interfaces: tuple[Interface, ...] = ()
    names: frozenset[str] = frozenset()
    """Host names to resolve."""
    findings: tuple[Finding, ...] = ()
