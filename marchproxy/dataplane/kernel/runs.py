"""Runs of consecutive numbers out of a fixed range."""

from marchproxy.model.errors import MarchproxyError


class PlanTooLarge(MarchproxyError):
    """The plan does not fit the kernel's tables."""


class Runs:
    """Hands out runs of numbers from 0 to `limit` - 1 and takes them back.

    Returned runs are kept by length, which fits how they are used: what replaces a listener or pool is mostly
    as long as what it replaces. When the rest is used up, free runs that touch are joined.
    """

    def __init__(self, what: str, limit: int) -> None:
        self._what = what
        self._limit = limit
        self._next = 0
        self._free: dict[int, list[int]] = {}

    def take(self, length: int) -> int:
        """The first number of a free run. Raises `PlanTooLarge`."""
        if self._next + length > self._limit and not self._free.get(length):
            self._join()
        if same := self._free.get(length):
            return same.pop()
        if self._next + length <= self._limit:
            first = self._next
            self._next += length
            return first
        larger = min((size for size, runs in self._free.items() if size > length and runs), default=None)
        if larger is None:
            raise PlanTooLarge(
                f"too many {self._what}: the kernel's table holds {self._limit}",
                hint="use fewer mappings, or services with fewer backends",
            )
        first = self._free[larger].pop()
        self.give_back(first + length, larger - length)
        return first

    def give_back(self, first: int, length: int) -> None:
        """Free a run that was taken."""
        if length:
            self._free.setdefault(length, []).append(first)

    def _join(self) -> None:
        runs = sorted((first, length) for length, firsts in self._free.items() for first in firsts)
        self._free.clear()
        start, size = 0, 0
        for first, length in runs:
            if size and first == start + size:
                size += length
                continue
            self.give_back(start, size)
            start, size = first, length
        if size and start + size == self._next:
            self._next = start
        else:
            self.give_back(start, size)
