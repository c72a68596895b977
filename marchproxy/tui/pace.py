"""How often the terminal asks and draws anew: where nothing is idle, what a machine carries comes first."""

import os
import time
from collections.abc import Callable, Hashable
from typing import Final

from marchproxy.dataplane.allowance import idle_seconds

SLOWER: Final = 4
"""How many times as long an interval is on a busy machine."""
SPARE: Final = 0.1
"""Of all processors: with less than that idle a machine is busy."""
LOOK: Final = 1.0
"""Seconds between two looks at what is idle."""


class Pace:
    """Keeps turns at intervals that others choose. Keys, and what they ask for, do not wait for it."""

    def __init__(
        self,
        idle: Callable[[], float | None] = idle_seconds,
        clock: Callable[[], float] = time.monotonic,
        processors: int = os.cpu_count() or 1,
    ) -> None:
        """`idle` is the machine's idle time in seconds; while it says None, the machine is never busy."""
        self._idle, self._clock, self._processors = idle, clock, processors
        self._busy = False
        self._looked, self._was = clock(), idle()
        self._passed: dict[Hashable, int] = {}

    def turn(self, who: Hashable) -> bool:
        """Whether it is the turn of whoever asks this once an interval."""
        self._look()
        passed = self._passed.get(who, 0) + 1
        turns = not self._busy or passed >= SLOWER
        self._passed[who] = 0 if turns else passed
        return turns

    def _look(self) -> None:
        now = self._clock()
        elapsed = now - self._looked
        if elapsed < LOOK:
            return
        idle, was = self._idle(), self._was
        self._looked, self._was = now, idle
        spare = SPARE * elapsed * self._processors
        self._busy = idle is not None and was is not None and idle - was < spare
