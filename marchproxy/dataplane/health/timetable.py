"""When which backend is checked. No clock and no dice of its own."""

from collections.abc import Callable, Hashable
from heapq import heapify, heappop, heappush
from itertools import count

JITTER = 0.1
"""Share of the interval by which each check may come early or late."""
FIRST_WITHIN = 1.0
"""Seconds."""


class Timetable[K: Hashable]:
    """The moments of the next checks, in seconds on any clock that goes on.

    A first check comes within a second, so that a daemon that starts soon knows what is dead, and the second
    one anywhere within the interval, which spreads ten thousand of them. From then on intervals vary by a
    tenth: checks that fell together drift apart, and backends do not see all appliances at once.
    """

    def __init__(self, dice: Callable[[], float]) -> None:
        """`dice` throws a number from 0 to 1."""
        self._dice = dice
        self._tickets: dict[K, int] = {}
        """What in the queue still holds."""
        self._queue: list[tuple[float, int, K]] = []
        self._numbers = count()
        self._fresh: set[K] = set()
        """Not checked yet."""

    def add(self, key: K, interval: float, now: float) -> None:
        """Check `key` for the first time soon."""
        self._fresh.add(key)
        self._put(key, now + self._dice() * min(interval, FIRST_WITHIN))

    def remove(self, key: K) -> None:
        """Check `key` no more. Unknown ones are ignored."""
        self._tickets.pop(key, None)
        self._fresh.discard(key)
        if len(self._queue) > 2 * len(self._tickets) + 16:
            self._queue = [item for item in self._queue if self._tickets.get(item[2]) == item[1]]
            heapify(self._queue)

    def again(self, key: K, interval: float, began: float, now: float) -> None:
        """A check of `key` that began at `began` is over: put the next one down, unless it was removed."""
        if key not in self._tickets:
            return
        first = key in self._fresh
        self._fresh.discard(key)
        wait = interval * (self._dice() if first else 1 + JITTER * (2 * self._dice() - 1))
        self._put(key, max(began + wait, now))

    def next_due(self) -> float | None:
        """When the next check is due; None: nothing is to be checked until something is put down."""
        while self._queue and self._tickets.get(self._queue[0][2]) != self._queue[0][1]:
            heappop(self._queue)
        return self._queue[0][0] if self._queue else None

    def take(self, now: float) -> K | None:
        """One that is due. It is due again only after `again`."""
        due = self.next_due()
        return heappop(self._queue)[2] if due is not None and due <= now else None

    def _put(self, key: K, at: float) -> None:
        ticket = self._tickets[key] = next(self._numbers)
        heappush(self._queue, (at, ticket, key))
