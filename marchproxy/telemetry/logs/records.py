"""What a log can hold: records of flows and refusals, and messages about everything else."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from pathlib import Path

from marchproxy.model.address import IPAddress
from marchproxy.model.making import maker
from marchproxy.model.reason import Reason, Tier, Verdict

DEFAULT_FOLDER = Path("/var/log/marchproxy")
"""Of files; `MARCHPROXY_LOG_DIR` names another."""


class LogClass(StrEnum):
    """What an operator switches on and off."""

    # `Enum` has one in Python, and every record asks for some.
    __hash__ = str.__hash__

    AUTH = "auth"
    """What admission let in, and refused."""
    NETFLOW = "netflow"
    """Beginnings and ends of flows, and what was denied."""
    ACCESS = "access"
    """Every HTTP request that was read."""
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

    __hash__ = str.__hash__

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
class RequestRecord:
    """An HTTP request that is over: class `access`. Times are in seconds from its head on."""

    cluster: str
    """Of its mapping, or else of the client's service."""
    time: float
    """When it was over, in seconds since the epoch."""
    id: int
    """The flow that it counts for; 0: none."""
    request_id: str
    traceparent: str
    """As its backend got it; empty: without."""
    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int
    source_service: str
    mapping: str
    route: str
    """Host and path that the mapping wants; empty: any."""
    service: str
    """Whose backend had it."""
    backend: str
    """Address and port; empty: none had it."""
    method: str
    host: str
    path: str
    version: str
    """`1.0`, `1.1`, `2` or `3`."""
    tls: str
    """`TLSv1.2` or `TLSv1.3`; empty: it came in the clear."""
    status: int
    """0: the client had gone before."""
    verdict: Verdict
    reason: Reason
    revision: int
    bytes_sent: int
    """Of its body."""
    bytes_received: int
    """Of the answer's."""
    attempts: int
    """Backends that were asked, or tried to be reached."""
    mirror: str
    """The service that got a copy; empty: none did."""
    early_data: bool
    """It went on before its client's handshake was complete."""
    connected: float
    """Until a backend had it."""
    waited: float
    """Until the head of the answer."""
    took: float
    """Until its end."""

    @property
    def classes(self) -> frozenset[LogClass]:
        """One of its own: there are many of these."""
        return _ACCESS

    @property
    def severity(self) -> Severity:
        """What the status says: 5xx is worth a look."""
        return Severity.NOTICE if self.status >= 500 else Severity.INFO


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


make_carried = maker(Carried)
make_flow_record = maker(FlowRecord)

type Record = FlowRecord | RequestRecord | Message

_DEBUG = frozenset({LogClass.DEBUG})
_ACCESS = frozenset({LogClass.ACCESS})
_PROTOCOLS = {"tcp": 6, "udp": 17}


def instant(seconds: float) -> str:
    """A time as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
