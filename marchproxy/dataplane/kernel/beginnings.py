"""Conversations whose beginning was told and whose end never will be.

The beginning of UDP and ICMP is told with the first answer, while their entries are in `opening`. That table
evicts, an entry's place is taken by whoever needs its port, and neither tells anybody. So both sides count:
the programs what was told and what moved on to `flows`, this what has ended and what is there. The rest is
gone.
"""

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map

_TOLD, _ESTABLISHED, _ENDED = map(
    layouts.U32.pack,
    (layouts.BEGINNING_TOLD, layouts.BEGINNING_ESTABLISHED, layouts.BEGINNING_ENDED),
)
_COUNT = layouts.U64


class Beginnings:
    """For one thread, but for `unended`. What is counted stays with the pins, over restarts of the daemon."""

    def __init__(self, counts: Map) -> None:
        self._counts = counts
        self.unended = 0
        """Conversations without an end, at least. All of them, once nothing has moved for a sweep."""

    @property
    def told(self) -> int:
        """To be read before entries are counted, for `settle`."""
        return self._read(_TOLD)

    def ended(self, count: int) -> None:
        """That many have ended in `opening`, and that was told."""
        if count:
            values = [_COUNT.unpack(cell)[0] for cell in self._counts.get_percpu(_ENDED)]
            values[0] += count
            self._counts.set_percpu(_ENDED, [_COUNT.pack(value) for value in values])

    def settle(self, told: int, there: int) -> None:
        """Of those `told` before a walk over `opening` it found `there`, and perhaps some that came later.

        What came later and what left after it was seen make the result too small, never too large; so it
        only grows.
        """
        gone = told - there - self._read(_ESTABLISHED) - self._read(_ENDED)
        self.unended = max(self.unended, gone)

    def _read(self, key: bytes) -> int:
        return sum(int(_COUNT.unpack(cell)[0]) for cell in self._counts.get_percpu(key))
