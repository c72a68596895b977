"""Answers that clients were given, for the next one who asks, and for when no resolver answers (RFC 8767)."""

from collections import OrderedDict
from dataclasses import dataclass

from marchproxy.dataplane.names.exchange import Question

ENTRIES = 10_000
BYTES = 8 << 20
"""Of all answers together; who was asked for longest ago goes first."""
STALE = 86400.0
"""Seconds for which an answer that is out of date may stand in."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer as it came."""

    wire: bytes
    at: float
    """When it came, in seconds of the caller's clock."""
    ttl: float

    def is_fresh(self, now: float) -> bool:
        """Whether it still holds."""
        return now < self.at + self.ttl


class Cache:
    """Answers by question, bounded by number and size."""

    def __init__(self, entries: int = ENTRIES, octets: int = BYTES) -> None:
        self._entries = entries
        self._octets = octets
        self._size = 0
        self._stored: OrderedDict[Question, Stored] = OrderedDict()

    def __len__(self) -> int:
        return len(self._stored)

    def get(self, question: Question, now: float) -> Stored | None:
        """What is known, be it out of date; who wants it fresh asks `is_fresh`."""
        found = self._stored.get(question)
        if found is None:
            return None
        if now > found.at + found.ttl + STALE:
            self._drop(question)
            return None
        self._stored.move_to_end(question)
        return found

    def put(self, question: Question, stored: Stored) -> None:
        """Keep an answer, and let go of others where there is no room."""
        self._drop(question)
        if len(stored.wire) > self._octets // 16:
            return
        self._stored[question] = stored
        self._size += len(stored.wire)
        while len(self._stored) > self._entries or self._size > self._octets:
            self._drop(next(iter(self._stored)))

    def _drop(self, question: Question) -> None:
        found = self._stored.pop(question, None)
        if found is not None:
            self._size -= len(found.wire)
