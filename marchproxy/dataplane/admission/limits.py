"""How much strangers may have open, and for how long. Times are in seconds."""

from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Address

from marchproxy.model.address import IPAddress

RESERVED_DESCRIPTORS = 512
"""For listeners, health checks (250), clients of the control socket, the store and the interpreter."""
_SUBNET_BITS = 64


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Of one process."""

    connections: int
    """Clients at one time, let in or not."""
    per_source: int
    """The same of one address, or of one IPv6 /64, of which one host can have all addresses."""
    each: float = 5.0
    """For one address to answer."""
    stagger: float = 0.25
    """Until the next address is tried beside one that has not answered (RFC 8305 section 5)."""
    opening: float = 15.0
    """From a request to its connection, the look-up of a name included: nobody waits longer for a refusal."""
    sending: float = 10.0
    """For a client to take an answer of ours, or to go on with what it sends."""
    head: float = 10.0
    """For the head of an HTTP request, from its first byte."""
    keepalive: float = 75.0
    """That an HTTP connection waits for the next request."""
    silence: float = 60.0
    """That a backend may take between a request and its answer, or within the answer."""
    associations: int = 256
    """SOCKS5 associations at one time."""
    associations_per_source: int = 16
    """The same of one source."""
    peers: int = 64
    """Whom one association may talk to at one time."""


def default_limits(descriptors: int, *, shared: bool = False) -> AdmissionLimits:
    """What `descriptors` (RLIMIT_NOFILE) allow, two a connection. `shared`: a tier needs them too."""
    free = max(descriptors - RESERVED_DESCRIPTORS, 64)
    connections = free // 8 if shared else free // 2
    return AdmissionLimits(
        connections, max(connections // 2, 16), associations=min(connections // 8 or 1, 256)
    )


class Gate:
    """Counts who is inside."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self._limits = limits
        self.inside = 0
        self._by_source: Counter[int] = Counter()

    @property
    def room(self) -> int:
        """For how many more there is any, whoever they are."""
        return self._limits.connections - self.inside

    def enter(self, source: IPAddress) -> bool:
        """Whether there is room for one more of `source`; then `leave` must follow."""
        key = source_key(source)
        if self.inside >= self._limits.connections or self._by_source[key] >= self._limits.per_source:
            return False
        self.inside += 1
        self._by_source[key] += 1
        return True

    def leave(self, source: IPAddress) -> None:
        """One of `source` is gone."""
        key = source_key(source)
        self.inside -= 1
        self._by_source[key] -= 1
        if not self._by_source[key]:
            del self._by_source[key]


def source_key(source: IPAddress) -> int:
    """One number for all that counts as one source; see `AdmissionLimits.per_source`."""
    # Shifted up, so that no subnet is taken for an IPv4 address.
    if isinstance(source, IPv4Address):
        return int(source)
    return int(source) >> (128 - _SUBNET_BITS) << 32 | 1 << 128
