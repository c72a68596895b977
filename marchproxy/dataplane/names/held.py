"""One name's addresses over time, without a clock of its own.

An address is *current* while the name resolves to it, or while a client may still hold it from an answer it
was given. After that it *lingers*: what was opened to it goes on, and a client that remembers it too long is
not cut off. Then it is gone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from marchproxy.model.address import IPAddress

LINGER = 300.0
"""Seconds that an address lingers: programs keep addresses for longer than their TTL, most for minutes."""
LONGEST = 86400.0
"""Seconds that it lingers at most, however long flows to it run or the resolver is down."""
MOST = 4096
"""Addresses of one name."""


@dataclass(slots=True)
class Held:
    """An address. Times are of the clock that the caller passes."""

    fresh_until: float
    """When it stops to be current; infinite while the last good answer has it."""
    gone_at: float
    """When it stops to linger."""
    since: int
    """Which version of the table it came with."""


class HeldAddresses:
    """The addresses of one name. Each change says whether `current` or `lingering` are others now."""

    __slots__ = ("_held", "current", "lingering", "next_at", "unlearned")

    def __init__(self) -> None:
        self._held: dict[IPAddress, Held] = {}
        self.current: tuple[IPAddress, ...] = ()
        """Sorted."""
        self.lingering: tuple[IPAddress, ...] = ()
        self.next_at = inf
        """When the next address stops to be current, or to linger."""
        self.unlearned = 0
        """How many there was no room for, since the last time that there was."""

    def __len__(self) -> int:
        return len(self._held)

    def items(self) -> Iterable[tuple[IPAddress, Held]]:
        """Addresses and their times."""
        return self._held.items()

    def restore(self, address: IPAddress, fresh_until: float, gone_at: float, version: int) -> None:
        """Take an address over as an earlier daemon held it; `settle` makes it show."""
        if len(self._held) < MOST:
            self._held[address] = Held(fresh_until, gone_at, version)

    def answer(
        self, addresses: Iterable[IPAddress], unknown: frozenset[int], now: float, version: int
    ) -> bool:
        """Make the current ones those of an answer, but for IP versions that are `unknown` to it."""
        found = set(addresses)
        for address, held in self._held.items():
            if held.fresh_until == inf and address not in found and address.version not in unknown:
                held.fresh_until, held.gone_at = now, now + LINGER
        for address in found:
            self._take(address, inf, now, version)
        return self.settle(now)

    def learn(self, addresses: Iterable[IPAddress], ttl: float, now: float, version: int) -> bool:
        """Add what a client was told, for as long as it may remember it."""
        known = True
        for address in addresses:
            held = self._held.get(address)
            known = known and held is not None and held.fresh_until > now
            self._take(address, now + ttl, now, version)
        # Mostly it was told before, and sorting thousands of addresses would be most of an answer's cost.
        return not known and self.settle(now)

    def since(self, addresses: Iterable[IPAddress]) -> int:
        """The version of the table that brought the last of these; 0: it has none of them."""
        return max((self._held[address].since for address in addresses if address in self._held), default=0)

    def ending(self, now: float) -> list[IPAddress]:
        """Those whose time to linger is over."""
        return [address for address, held in self._held.items() if held.gone_at <= now]

    def postpone(self, addresses: Iterable[IPAddress], now: float, seconds: float) -> None:
        """Let some linger for longer, up to `LONGEST` after they were current."""
        for address in addresses:
            held = self._held[address]
            held.gone_at = max(held.gone_at, min(now + seconds, held.fresh_until + LONGEST))

    def drop(self, now: float) -> bool:
        """Let go of those whose time to linger is over, after all have been asked who still needs them."""
        for address in self.ending(now):
            del self._held[address]
        return self.settle(now)

    def forget(self, addresses: Iterable[IPAddress], now: float) -> bool:
        """Let go of some at once, whoever uses them."""
        for address in addresses:
            self._held.pop(address, None)
        return self.settle(now)

    def settle(self, now: float) -> bool:
        """Sort them by what they are at `now`; whether that differs from before. None is dropped."""
        fresh = [address for address, held in self._held.items() if held.fresh_until > now]
        stale = [address for address, held in self._held.items() if held.fresh_until <= now]
        self.next_at = min(
            (held.fresh_until if held.fresh_until > now else held.gone_at for held in self._held.values()),
            default=inf,
        )
        current, lingering = in_order(fresh), in_order(stale)
        changed = (current, lingering) != (self.current, self.lingering)
        self.current, self.lingering = current, lingering
        return changed

    def _take(self, address: IPAddress, fresh_until: float, now: float, version: int) -> None:
        held = self._held.get(address)
        if held is not None:
            held.fresh_until = max(held.fresh_until, fresh_until)
            held.gone_at = max(held.gone_at, held.fresh_until + LINGER)
        elif len(self._held) < MOST or self._make_room(now):
            self._held[address] = Held(fresh_until, fresh_until + LINGER, version)
            self.unlearned = 0
        else:
            self.unlearned += 1

    def _make_room(self, now: float) -> bool:
        """Give up the lingering address whose time is over first."""
        stale = {address: held.gone_at for address, held in self._held.items() if held.fresh_until <= now}
        if stale:
            del self._held[min(stale, key=lambda address: stale[address])]
        return bool(stale)


def in_order(addresses: Iterable[IPAddress]) -> tuple[IPAddress, ...]:
    """IPv4 before IPv6, then by number."""
    return tuple(sorted(addresses, key=lambda address: (address.version, int(address))))
