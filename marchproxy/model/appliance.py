"""What belongs to the appliance and to no cluster: block lists, limits, listeners of its own, settings."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from marchproxy.model.address import Prefix
from marchproxy.model.collector import EXAMPLE_ENTERPRISE
from marchproxy.model.endpoint import Endpoint

MAX_TIMEOUT = 30 * 86400
"""Seconds."""
MAX_HANDOFF = 2**40
"""Bytes."""
MAX_WARNING = 365 * 86400
"""Seconds."""
MAX_ENTERPRISE = 2**32 - 1
MAX_ENTRIES = 100_000_000
"""Of one block list."""
SETTINGS_NAME = "settings"


@dataclass(frozen=True, slots=True)
class Block:
    """One address, prefix or host name that nothing may come from or go to, whatever mappings say."""

    name: str
    """The address, prefix or host name itself, in canonical text."""
    reason: str = ""
    origin: str = ""
    """Who or what put it there."""
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class BlockList:
    """Many blocked prefixes and names that came from one file. The store keeps the contents by their hash."""

    name: str
    sha256: str
    """Of the contents in the store's own packed form."""
    entries: int
    origin: str = ""
    """The file or address that it was read from."""
    reason: str = ""
    expires: datetime | None = None


MAX_RATE = 100_000_000_000
"""Of a limit, in packets, bytes or flows a second."""
MAX_BURST = 3600
"""Seconds' worth of a limit's rate that may come at once."""


class Per(StrEnum):
    """What a limit is counted for."""

    SOURCE = "source"
    """Every source address by itself."""
    SERVICE = "service"
    """All traffic of a source service together."""
    TOTAL = "total"


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate that traffic may not exceed; what is beyond it is dropped, RATE_LIMITED."""

    name: str
    per: Per
    services: tuple[str, ...] = ()
    """Qualified names of source services that it is for, each with its own rate where `per` is `service`;
    empty with `source` and `total`: every address."""
    packets_per_second: int | None = None
    """1 to `MAX_RATE`, as the other two; at least one is given, and all that are must be kept."""
    bytes_per_second: int | None = None
    """IP length."""
    flows_per_second: int | None = None
    """New flows."""
    burst: int | None = None
    """How many packets may come at once; bytes in a limit without a packet rate, flows where it has neither.
    The other rates get as much as comes in the same time. 1 to `MAX_BURST` seconds' worth; None: a tenth of a
    second's."""
    exempt: tuple[Prefix, ...] = ()
    """Source prefixes that it does not hold for."""


class ListenerKind(StrEnum):
    """What a listener of the appliance itself speaks."""

    DNS = "dns"
    EXPLICIT = "explicit"
    """HTTP proxy and SOCKS5, told apart by a client's first byte."""


@dataclass(frozen=True, slots=True)
class ApplianceListener:
    """An address and port that the appliance itself serves."""

    name: str
    """`KIND@ADDR:PORT`, so that every address and port has one listener of a kind."""
    kind: ListenerKind
    bind: Endpoint
    tls: str | None = None
    """The qualified name of the certificate with which it speaks TLS; None: it does not."""
    proxy_from: tuple[Prefix, ...] = ()
    """Who has to say, by the PROXY protocol, for which client it connects."""


class Refusal(StrEnum):
    """What a denied client is told."""

    ANSWER = "answer"
    """A TCP reset, or ICMP administratively prohibited; to clients outside only by listeners."""
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Settings:
    """The appliance's own settings; there is one, `settings`.

    Times are in seconds of silence after which a flow ends, 1 to 2592000 (30 days); see `kernel/flows.py`
    for the RFCs behind them.
    """

    name: str = SETTINGS_NAME
    audit: bool = False
    """Everything that would be denied for want of a mapping, or by one, is reported and let through."""
    refusal: Refusal = Refusal.ANSWER
    refusals_per_second: int = 1000
    """Answers to denied packets, for each processor, 1 to 1000000."""
    flow_table: int = 1048576
    """Entries of the flow table, two for each flow, 1024 to 16777216: as of the next loading of programs."""
    timeout_tcp_established: int = 7440
    timeout_tcp_closing: int = 300
    timeout_tcp_opening: int = 60
    timeout_udp: int = 180
    timeout_udp_unanswered: int = 30
    timeout_icmp: int = 30
    tunnel_idle: int = 3600
    """Of tunnels that user space relays."""
    tunnel_lifetime: int = 0
    """Seconds that a tunnel may be open in all, 0 to 2592000; 0: for ever."""
    handoff_bytes: int = 65536
    """Bytes after which a tunnel goes to the kernel, 0 to 1099511627776; 0: bytes do not matter.

    Each read counts as 1024 at least.
    """
    handoff_seconds: int = 1
    """Seconds after which it does, 0 to 2592000; 0: time does not matter. Both 0: never."""
    resolvers: tuple[str, ...] = ()
    """DNS servers as `ADDR` or `ADDR:PORT`; empty: the system's."""
    private_answers: tuple[str, ...] = ()
    """Host names, `*.` wildcards included, that may resolve to private addresses or the appliance's own."""
    certificate_warning: int = 30 * 86400
    """Seconds before a certificate that is used expires, from which on that is warned of, 0 to 31536000."""
    enterprise_number: int = EXAMPLE_ENTERPRISE
    """Of whoever runs this, as assigned by IANA, 1 to 4294967295: what fields of our own in logs are named
    under."""


DEFAULT_SETTINGS = Settings()
