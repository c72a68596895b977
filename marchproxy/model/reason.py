"""Why a packet or connection ended as it did: the names of `bpf/reasons.h`, for everyone above the kernel.

The same name is metric label, syslog field, the TUI's text and the answer of `explain`.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType


class Reason(IntEnum):
    """Numbers are those of `bpf/reasons.h`; a test compares the two lists."""

    # `Enum` has one in Python, and every event asks for some.
    __hash__ = int.__hash__

    FORWARDED = 1
    HANDED_OFF = 2
    PASSED_TO_HOST = 3
    NO_MAPPING = 4
    DENY_MAPPING = 5
    BLOCKED_SOURCE = 6
    BLOCKED_DESTINATION = 7
    RATE_LIMITED = 8
    NO_BACKEND = 9
    NO_ROUTE = 10
    NO_NAT_PORT = 11
    FLOW_TABLE_FULL = 12
    MALFORMED = 13
    TTL_EXPIRED = 14
    TOO_BIG = 15
    AUTH_MISSING = 16
    AUTH_INVALID = 17
    AUTH_EXPIRED = 18
    UPSTREAM_REFUSED = 19
    UPSTREAM_TIMEOUT = 20
    NO_FLOW = 21
    FRAGMENT = 22
    NOT_CARRIED = 23
    CLOSED = 24
    RESET = 25
    IDLE = 26
    POLICY_CHANGED = 27
    HANDED_UP = 28
    UNSUPPORTED = 29
    SPOOFED = 30
    REROUTED = 31
    NAME_UNKNOWN = 32
    PRIVATE_ADDRESS = 33
    SNI_MISMATCH = 34
    SNI_MISSING = 35
    TOO_SLOW = 36
    LIFETIME = 37
    CUT = 38
    AUTH_REVOKED = 39
    TLS_FAILED = 40

    @property
    def meaning(self) -> str:
        """What an operator should make of it, in a few words."""
        return _MEANINGS[self]


_MEANINGS: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.FORWARDED: "carried by a flow",
        Reason.HANDED_OFF: "carried, after user space admitted the connection",
        Reason.PASSED_TO_HOST: "for the appliance's own host",
        Reason.NO_MAPPING: "no mapping allows it",
        Reason.DENY_MAPPING: "a mapping denies it",
        Reason.BLOCKED_SOURCE: "its source is blocked",
        Reason.BLOCKED_DESTINATION: "its destination is blocked",
        Reason.RATE_LIMITED: "above a rate limit",
        Reason.NO_BACKEND: "allowed, but no destination can take it now",
        Reason.NO_ROUTE: "the routing table has no way to its destination",
        Reason.NO_NAT_PORT: "no source port is free, or no address to masquerade with",
        Reason.FLOW_TABLE_FULL: "no room for a new flow; established ones go on",
        Reason.MALFORMED: "headers that contradict themselves or end early",
        Reason.TTL_EXPIRED: "hop limit used up, as traceroute does on purpose",
        Reason.TOO_BIG: "larger than the next link takes; its sender is told the size",
        Reason.AUTH_MISSING: "the mapping wants a credential, and none came",
        Reason.AUTH_INVALID: "the credential is wrong",
        Reason.AUTH_EXPIRED: "the credential is too old",
        Reason.UPSTREAM_REFUSED: "the backend refused the connection",
        Reason.UPSTREAM_TIMEOUT: "the backend did not answer",
        Reason.NO_FLOW: "from the middle of a connection not seen to begin: is one way routed past us?",
        Reason.FRAGMENT: "a later fragment whose first was not seen",
        Reason.NOT_CARRIED: "the mapping wants what this version or tier cannot do",
        Reason.CLOSED: "both sides closed",
        Reason.RESET: "one side reset the connection",
        Reason.IDLE: "silent for too long",
        Reason.POLICY_CHANGED: "no longer allowed",
        Reason.HANDED_UP: "left by XDP to TC, which counts it again",
        Reason.UNSUPPORTED: "IP options or headers that are never forwarded",
        Reason.SPOOFED: "its source address belongs to the other side of the appliance",
        Reason.REROUTED: "its way out moved to an interface that its source address is not of",
        Reason.NAME_UNKNOWN: "the name that was asked for does not resolve",
        Reason.PRIVATE_ADDRESS: "a name led to a private address, or to the appliance itself",
        Reason.SNI_MISMATCH: "TLS names another host than was asked for",
        Reason.SNI_MISSING: "no TLS that names its host, where the mapping wants one",
        Reason.TOO_SLOW: "the client did not finish its request in time",
        Reason.LIFETIME: "open for as long as it may be",
        Reason.CUT: "ended by an operator",
        Reason.AUTH_REVOKED: "the credential was taken back",
        Reason.TLS_FAILED: "TLS was not agreed on: too old a version, or our certificate is not trusted",
    }
)


class Verdict(StrEnum):
    """What a decision comes to."""

    __hash__ = str.__hash__  # as above

    ALLOW = "allow"
    DENY = "deny"
    AUDIT = "audit"
    """Would be denied, and is let through."""
    HOST = "host"

    @property
    def lets_through(self) -> bool:
        """Whether the appliance forwards it."""
        return self in (Verdict.ALLOW, Verdict.AUDIT)


class Tier(Enum):
    """Who carried or refused it (DESIGN, "Tiers"); the value is the number in kernel records."""

    __hash__ = object.__hash__  # as above

    SOCKETS = 0
    TC = 1
    XDP = 2

    @property
    def label(self) -> str:
        """The name that operators read."""
        return self.name.lower()
