"""How many connections strangers may be beginning, and when they must show first where they are."""

from collections import Counter

from marchproxy.dataplane.admission.limits import source_key
from marchproxy.model.address import IPAddress

EASY = 64
"""Handshakes at one time below which nobody is asked to come again with a token (RFC 9000 section 8.1.2)."""
EASY_PER_SOURCE = 16
MOST = 512
"""Those of clients with a token, in addition."""
MOST_PER_SOURCE = 64
PATIENCE = 10.0
"""Seconds for a handshake."""


class Handshakes:
    """Those under way at one endpoint."""

    def __init__(self) -> None:
        self._by_source: Counter[int] = Counter()
        self.count = 0

    def crowded(self, source: IPAddress) -> bool:
        """Whether whoever sends in this name has to show that he receives there."""
        return self.count >= EASY or self._by_source[source_key(source)] >= EASY_PER_SOURCE

    def full(self, source: IPAddress) -> bool:
        """Whether not even that is enough."""
        return self.count >= MOST or self._by_source[source_key(source)] >= MOST_PER_SOURCE

    def enter(self, source: IPAddress) -> None:
        """One begins; `leave` must follow."""
        self.count += 1
        self._by_source[source_key(source)] += 1

    def leave(self, source: IPAddress) -> None:
        """One is complete, or over."""
        key = source_key(source)
        self.count -= 1
        self._by_source[key] -= 1
        if not self._by_source[key]:
            del self._by_source[key]
