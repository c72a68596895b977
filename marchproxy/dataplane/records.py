"""Facts that leave the data plane. Each has the same fields in every tier, whoever found it out."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from marchproxy.model.address import IPAddress
from marchproxy.model.entities import Role
from marchproxy.model.making import maker
from marchproxy.model.reason import Reason, Tier, Verdict


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packets and bytes (IP length, headers included) of one direction."""

    packets: int = 0
    bytes: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.packets + other.packets, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision record (DESIGN, "One decision record"): who wanted what, and what became of it."""

    time: float
    """Seconds since the epoch."""
    id: int
    """Flow or connection; 0 for a refused packet."""
    source: IPAddress
    source_port: int
    destination: IPAddress
    """As the client asked for it, before rewriting."""
    destination_port: int
    protocol: str
    """`tcp`, `udp`, `icmp`, or the IANA number as text."""
    tier: Tier
    verdict: Verdict
    reason: Reason
    mapping: str = ""
    """Qualified name, empty where none decided."""
    revision: int = 0
    source_service: str = ""
    destination_service: str = ""
    name: str = ""
    """Host or SNI asked for."""
    interface: str = ""
    count: int = 1
    """Packets that the record stands for: of what a client tries again within a second only the first is told
    at once, and the others with the next."""

    def between(self, source: str, destination: str) -> "Decision":
        """The same, of these services. Every event passes here, and `replace` takes many times as long."""
        return make_decision(
            self.time,
            self.id,
            self.source,
            self.source_port,
            self.destination,
            self.destination_port,
            self.protocol,
            self.tier,
            self.verdict,
            self.reason,
            self.mapping,
            self.revision,
            source,
            destination,
            self.name,
            self.interface,
            self.count,
        )


class FlowState(StrEnum):
    """Where a conversation is."""

    OPENING = "opening"
    ESTABLISHED = "established"
    CLOSING = "closing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Flow:
    """One tracked conversation, live or just ended."""

    decision: Decision
    backend: IPAddress
    backend_port: int
    state: FlowState
    started: float
    """Seconds since the epoch."""
    last_seen: float
    sent: Traffic
    """Client to backend."""
    received: Traffic
    """Backend to client."""

    def by(self, decision: Decision) -> "Flow":
        """The same, by this decision; see `Decision.between`."""
        return make_flow(
            decision,
            self.backend,
            self.backend_port,
            self.state,
            self.started,
            self.last_seen,
            self.sent,
            self.received,
        )


class EventKind(StrEnum):
    """What the event stream carries."""

    # `Enum` has one in Python, and every event asks for some.
    __hash__ = str.__hash__

    FLOW_START = "flow-start"
    FLOW_END = "flow-end"
    DENIED = "denied"
    AUDITED = "audited"
    """Would have been denied, and was let through."""
    REQUEST = "request"
    """An HTTP request was answered, by a backend or by us."""
    BACKEND = "backend"
    """A backend went down or came up. No tier tells this, nor what follows: the daemon does."""
    RELOAD = "reload"
    """A revision was applied, or refused."""
    INTERFACE = "interface"
    """Programs were attached to an interface, or are no longer."""
    PROBLEM = "problem"
    """Something is wrong, or no longer is."""


@dataclass(frozen=True, slots=True)
class Denials:
    """What has been refused for one reason by one mapping, or let through in its stead by audit."""

    reason: Reason
    mapping: str
    """Qualified name, empty where none decided."""
    audited: bool
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class Exchanged:
    """An HTTP request, and what it was answered."""

    method: str
    path: str
    """Without the query, in which secrets may be."""
    version: str
    """`1.0`, `1.1`, `2` or `3`."""
    tls: str
    """`TLSv1.2` or `TLSv1.3`; empty: it came in the clear."""
    status: int
    """0: the client had gone before."""
    backend: str
    """Address and port; empty: none had it."""
    service: str
    """Qualified name of the backend's."""
    route: str
    """Host and path that the mapping wants; empty: any."""
    request_id: str
    traceparent: str
    """As the backend got it (W3C Trace Context); empty: without."""
    sent: int
    """Bytes of the request's body."""
    received: int
    """Of the answer's."""
    attempts: int
    """Backends that were asked, or tried to be reached."""
    connected: float
    """Seconds until one had it; 0: none did."""
    waited: float
    """Seconds until the head of the answer."""
    took: float
    """Seconds until its end."""
    mirror: str = ""
    """Qualified name of the service that got a copy; empty: none did."""
    early_data: bool = False
    """It came, and went on, before its client's handshake was complete."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened just now. `flow` is set for flow events, `exchanged` for requests."""

    kind: EventKind
    decision: Decision
    flow: Flow | None = None
    exchanged: Exchanged | None = None


type EventSink = Callable[[Event], None]

make_traffic = maker(Traffic)
make_decision = maker(Decision)
make_flow = maker(Flow)
make_event = maker(Event)


@dataclass(frozen=True, slots=True)
class LimitState:
    """What a rate limit has let through, and what it has dropped."""

    name: str
    passed: Traffic
    dropped: Traffic


@dataclass(frozen=True, slots=True)
class BackendState:
    """A backend that is checked or drained, as it is now."""

    service: str
    """Qualified name."""
    address: IPAddress
    port: int
    """0 where it is pinged: then it stands for all ports."""
    check: str
    """`tcp`, `icmp`, `http`, `https` or `none`; `requests`: nobody checks, requests have failed there, and
    it is left out for a while."""
    up: bool | None
    """Whether it gets new flows by its health; None: not checked."""
    checked: bool
    """Whether any check has ended: before, a backend counts as up."""
    drained: bool
    since: float
    """Seconds since the epoch; 0 where it is not checked."""
    why: str
    """What the last check found wrong; empty: nothing."""


@dataclass(frozen=True, slots=True)
class BackendLoad:
    """Established flows of a backend that `least-connections` compares. Services with the same address and
    port share them.
    """

    service: str
    """Qualified name."""
    address: IPAddress
    port: int
    flows: int


@dataclass(frozen=True, slots=True)
class Outlier:
    """A backend that requests leave out, in one process or added up over all."""

    service: str
    """Qualified name."""
    address: IPAddress
    port: int
    since: float
    """Seconds since the epoch."""
    why: str
    processes: int = 1
    """How many of those that carry requests leave it out."""


@dataclass(frozen=True, slots=True)
class BackendEvent:
    """A backend went down or came up, at `state.since`."""

    state: BackendState


@dataclass(frozen=True, slots=True)
class ReloadEvent:
    """The newest revision was applied, or could not be."""

    time: float
    """Seconds since the epoch."""
    revision: int
    """What is carried out now."""
    sha256: str
    took: float
    """Seconds; 0 where it failed."""
    message: str
    """Why it failed; empty: it did not."""


@dataclass(frozen=True, slots=True)
class ProblemEvent:
    """Something is wrong since now, or no longer is."""

    time: float
    """Seconds since the epoch."""
    component: str
    message: str
    over: bool


@dataclass(frozen=True, slots=True)
class InterfaceState:
    """An interface of the plan, as found.

    `attached` is `xdp`, `xdp-generic` (both have TC behind them), `tc` or `clsact`; empty: see `problem`.
    """

    name: str
    role: Role
    mode: str
    attached: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class InterfaceEvent:
    """Programs were attached to an interface, in another way than before, or are no longer."""

    time: float
    """Seconds since the epoch."""
    state: InterfaceState


@dataclass(frozen=True, slots=True)
class TableFill:
    """How full a table of bounded size is."""

    name: str
    used: int
    limit: int
