"""Who guesses, waits: failures of each source address, counted without I/O and without a clock."""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Address

from marchproxy.model.address import IPAddress

FAILURES = 10
"""That a source may have within `WINDOW`."""
WINDOW = 60.0
"""Seconds."""
LONGEST = 60.0
"""Seconds that a source waits at most. The first wait is one second, and each failure after it doubles it."""
MOST_SOURCES = 65_536

type _Key = tuple[int, int]


@dataclass(slots=True)
class _Source:
    failures: int
    since: float
    """When the first of these failures was."""
    until: float
    """Until when it is refused."""


class FailureLimiter:
    """Counts failures by source: an IPv4 address, or an IPv6 /64, of which one host can have all addresses.

    Of more than `MOST_SOURCES` sources the one that failed longest ago is forgotten. Success clears nothing:
    whoever holds one credential could otherwise go on guessing another one. `now` is in seconds of a clock
    that does not go back; should it, nobody waits for longer than `LONGEST`.
    """

    def __init__(self) -> None:
        self._sources: OrderedDict[_Key, _Source] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sources)

    def wait(self, address: IPAddress, now: float) -> float:
        """For how many seconds attempts of this source are refused, RATE_LIMITED; 0: it may try."""
        source = self._sources.get(_key(address))
        return 0.0 if source is None else min(max(source.until - now, 0.0), LONGEST)

    def failed(self, address: IPAddress, now: float) -> None:
        """Count a credential that was wrong. Attempts that were refused unread do not count."""
        key = _key(address)
        source = self._sources.get(key)
        if source is None or not source.since <= now < max(source.since, source.until) + WINDOW:
            source = self._sources[key] = _Source(0, now, 0.0)
        source.failures += 1
        if source.failures >= FAILURES:
            source.until = now + min(2.0 ** min(source.failures - FAILURES, 16), LONGEST)
        self._sources.move_to_end(key)
        if len(self._sources) > MOST_SOURCES:
            self._sources.popitem(last=False)


def _key(address: IPAddress) -> _Key:
    plain = address if isinstance(address, IPv4Address) else address.ipv4_mapped or address
    return (4, int(plain)) if isinstance(plain, IPv4Address) else (6, int(plain) >> 64)
