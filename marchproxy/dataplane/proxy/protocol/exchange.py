"""Events that go into a protocol layer, and commands that come out of it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from marchproxy.model.address import IPAddress
from marchproxy.model.presented import Presented
from marchproxy.model.reason import Reason

MAX_AHEAD = 65_536
"""Bytes that a layer holds of what a client sends before it is let in; whoever sends more is refused.

A server therefore reads little at a time, and nothing more once it is asked (`Ask`): who uploads has done no
wrong.
"""


class Speech(StrEnum):
    """How a client asked, as records and logs name it."""

    CONNECT = "connect"
    """HTTP CONNECT."""
    FORWARD = "forward"
    """An HTTP request in absolute form: one request, one answer."""
    SOCKS5 = "socks5"
    ASSOCIATE = "associate"
    """SOCKS5 UDP ASSOCIATE: datagrams, each with a destination of its own."""
    PREFACE = "preface"
    """`MARCHPROXY/1 TOKEN` on a listener of a mapping."""
    FLEET = "fleet"
    """The fleet's `MARCHPROXY_AUTH` challenge on such a listener."""
    TLS = "tls"
    """A TLS ClientHello that passes through."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client wants, as far as its own words say it."""

    speech: Speech
    host: str | IPAddress | None
    """A host name, lower case and without a trailing dot, or an address; None: the listener says where."""
    port: int | None
    """1 to 65535; 0 only with ASSOCIATE."""
    credential: Presented | None = None
    secure: bool = False
    """The client will speak TLS through it, as far as can be told."""
    ech: bool = False
    """Its TLS hello may hide the real name (RFC 9849). Browsers say so at random, to make it mean nothing."""


class Unfit(Exception):
    """What a client said leads nowhere; `detail` is as in `Refused`."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Bound(Protocol):
    """Where that part of a client's bytes ends which goes upstream.

    While it is not `free`, a relay copies in user space and shows it every byte of both directions.
    """

    @property
    def free(self) -> bool:
        """No longer needed: all further bytes go both ways."""

    def take(self, data: bytes) -> bytes:
        """The beginning of the client's next bytes that goes upstream; the rest is dropped.

        Raises `Unfit`: the connection is over, and nothing can be told to the client any more.
        """

    def answered(self, data: bytes) -> None:
        """Notice what comes from upstream, before the client gets it."""


# ---- events


@dataclass(frozen=True, slots=True)
class Started:
    """The connection stands. The first event of every layer; its deadline runs from here."""


@dataclass(frozen=True, slots=True)
class Received:
    """Bytes from the client, at least one."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The client sends no more (FIN). After `Ask` this is the server's to remember and pass on."""


@dataclass(frozen=True, slots=True)
class Elapsed:
    """The instant of the last `WakeAt` has come."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The request was admitted and its upstream connection stands."""

    local: IPAddress
    """The appliance's own end of it."""
    local_port: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The request goes nowhere."""

    reason: Reason
    detail: str = ""
    """One line for the person behind the client: no secrets, nothing that they may not know."""


type Event = Started | Received | Ended | Elapsed | Opened | Refused


# ---- commands


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes for the client."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """Decide about the request; the answer is the event `Opened` or `Refused`. At most one is unanswered."""

    request: Request


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send `Elapsed` at this instant of the clock that `now` is of; it replaces the last one. None: never."""

    instant: float | None


@dataclass(frozen=True, slots=True)
class Relay:
    """The layer is done: copy bytes both ways from here on."""

    ahead: bytes = field(default=b"", repr=False)
    """What was read from the client already, or takes its place; goes upstream first."""
    bound: Bound | None = None
    """What limits the client's further bytes; None: nothing does."""


@dataclass(frozen=True, slots=True)
class Close:
    """The layer is done and the connection is over, once what was sent has gone out."""

    reason: Reason
    detail: str = ""
    """What was wrong, for the log; the client has been told by `Send` where its protocol has words for it."""


type Command = Send | Ask | WakeAt | Relay | Close


class Layer(Protocol):
    """One connection's protocol until it is admitted."""

    def handle(self, event: Event, now: float) -> list[Command]:
        """Advance. `now` is monotonic, in seconds. After `Relay` or `Close` it is not called again."""
