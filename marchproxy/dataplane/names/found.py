"""What looking a name up comes to: for whoever only asks, and needs nothing that speaks DNS."""

from dataclasses import dataclass
from enum import StrEnum

from marchproxy.model.address import IPAddress


class Failure(StrEnum):
    """Why there is no answer."""

    NXDOMAIN = "the name does not exist"
    NODATA = "it has no addresses"
    SERVFAIL = "the resolver could not find out"
    REFUSED = "the resolver refuses to answer"
    MALFORMED = "the resolver's answer cannot be read"
    TIMEOUT = "the resolver does not answer"
    UNREACHABLE = "the resolver cannot be reached"
    REBINDING = "its addresses are refused"

    @property
    def is_answer(self) -> bool:
        """Whether the resolver said so about the name, and did not itself fail."""
        return self in (Failure.NXDOMAIN, Failure.NODATA, Failure.REBINDING)


@dataclass(frozen=True, slots=True)
class Found:
    """What a name resolves to."""

    addresses: tuple[IPAddress, ...]
    ttl: float
    """Seconds that the answer holds: the smallest TTL on the way."""
    unknown: frozenset[int] = frozenset()
    """IP versions about which the resolver gave no answer, although it did about the other."""
    is_local: bool = False
    """From the hosts file: the operator's own words."""


class LookupFailed(Exception):
    """No addresses. `ttl`: seconds until it is worth asking again, 0 where nobody said."""

    def __init__(self, failure: Failure, ttl: float = 0.0) -> None:
        super().__init__(failure.value)
        self.failure = failure
        self.ttl = ttl

    def __reduce__(self) -> tuple[type["LookupFailed"], tuple[Failure, float]]:
        """As it was made: it also goes from one process to another."""
        return LookupFailed, (self.failure, self.ttl)
