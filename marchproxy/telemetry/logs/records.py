"""What a log can hold: records of flows and refusals, and messages about everything else."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from marchproxy.model.address import IPAddress
from marchproxy.model.reason import Reason, Tier, Verdict


class LogClass(StrEnum):
    """What an operator switches on and off."""

    AUTH = "auth"
    """What admission let in, and refused."""
    NETFLOW = "netflow"
    """Beginnings and ends of flows, and what was denied."""
    DEBUG = "debug"


class Severity(IntEnum):
    """RFC 5424 table 2, as far as it is used here."""

    CRITICAL = 2
    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


class Happening(StrEnum):
    """What a record tells; the same words as in the control socket's stream of events."""

    START = "flow-start"
    END = "flow-end"
    DENIED = "denied"
    AUDITED = "audited"

    @property
    def refuses(self) -> bool:
        """Whether it is about traffic that policy does not allow."""
        return self in (Happening.DENIED, Happening.AUDITED)


@dataclass(frozen=True, slots=True)
class Carried:
    """What became of a flow so far."""

    backend: IPAddress
    backend_port: int
    started: float
    """Seconds since the epoch."""
    packets_sent: int
    """Client to backend."""
    bytes_sent: int
    packets_received: int
    bytes_received: int


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """A decision record (DESIGN §4) on its way out."""

    cluster: str
    """Whose it is."""
    classes: frozenset[LogClass]
    happening: Happening
    time: float
    """Seconds since the epoch."""
    id: int
    """What belongs to one flow has one number; 0: it never became a flow."""
    source: IPAddress
    source_port: int
    destination: IPAddress
    """As the client asked for it."""
    destination_port: int
    protocol: str
    """`tcp`, `udp`, `icmp`, or the IANA number as text."""
    tier: Tier
    verdict: Verdict
    reason: Reason
    mapping: str
    revision: int
    source_service: str
    destination_service: str
    name: str
    """Host or SNI asked for."""
    interface: str
    count: int
    """Packets that it stands for."""
    carried: Carried | None
    """None for a refusal."""

    @property
    def severity(self) -> Severity:
        """A refusal is worth a look."""
        return Severity.NOTICE if self.happening.refuses else Severity.INFO

    @property
    def protocol_number(self) -> int:
        """As in an IP header (IANA, Protocol Numbers)."""
        if self.protocol == "icmp":
            return 1 if self.source.version == 4 else 58
        known = _PROTOCOLS.get(self.protocol)
        return int(self.protocol) if known is None else known


@dataclass(frozen=True, slots=True)
class Message:
    """Anything else: class `debug`."""

    cluster: str
    kind: str
    """`backend` or `log`; at most 32 letters."""
    time: float
    severity: Severity
    text: str
    fields: tuple[tuple[str, str], ...] = ()
    """Names of letters and `_`, with their values."""

    @property
    def classes(self) -> frozenset[LogClass]:
        """Of `debug`, whatever it is about."""
        return _DEBUG


type Record = FlowRecord | Message

_DEBUG = frozenset({LogClass.DEBUG})
_PROTOCOLS = {"tcp": 6, "udp": 17}
