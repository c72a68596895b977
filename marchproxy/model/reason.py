"""Why a packet or connection ended as it did: the names of `bpf/reasons.h`, for everyone above the kernel.

The same name is metric label, syslog field, the TUI's text and the answer of `explain`.
"""

from enum import Enum, IntEnum, StrEnum


class Reason(IntEnum):
    """Numbers are those of `bpf/reasons.h`; a test compares the two lists."""

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


class Verdict(StrEnum):
    """What a decision comes to."""

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

    SOCKETS = 0
    TC = 1
    XDP = 2

    @property
    def label(self) -> str:
        """The name that operators read."""
        return self.name.lower()
