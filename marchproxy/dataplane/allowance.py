"""What telling may cost: most of what is idle, and a small share of a machine where nothing is.

Telling is what becomes of the kernel's events, and walks over its flows for whoever looks. Python does it
on the processors that carry the traffic. A thread of the scheduler's idle class was rejected: it would hold
the interpreter's lock while it waits for a processor, and admission with it.
"""

import os
import threading
import time
from collections.abc import Callable

EVENTS = 0.01
"""Of all processors: what events may cost where nothing is idle."""
WALKS = 0.005
"""Of all processors: what each list of flows may cost there."""
WALK = 0.25
"""Of one processor: what a list may cost where enough is idle."""
LONGEST = 120.0
"""Seconds that a list is used at most, however long its walk took."""
RESERVE = 0.25
"""Of all processors: idle time that is left alone. Whoever waits for answers has some between two of them."""
_LEAST = 0.1
"""Seconds between two looks at the machine: its clock has steps of 10 ms."""
_SAVED = 1.0
"""Seconds of the share that may be saved up."""
_COST, _CHEAPEST, _DEAREST = 30e-6, 5e-6, 200e-6
"""Seconds that an event takes until it has left: at first, and the least and the most that is believed."""
_WEIGHT, _KEPT = 100, 0.8
"""Events that the assumption counts for, and what remains of older experience with each look."""


def idle_seconds() -> float | None:
    """Processor time that this machine had nothing to do in, since it runs; None: it does not say.

    /proc/stat (proc_stat(5)): user, nice, system, idle, iowait. It takes 20 us to read.
    """
    try:
        with open("/proc/stat", "rb") as file:
            fields = file.readline(256).split()
        return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


class Allowance:
    """Says how much may be told, from what the machine has idle and what telling has cost. For any thread."""

    def __init__(
        self,
        idle: Callable[[], float | None] = idle_seconds,
        clock: Callable[[], float] = time.monotonic,
        processors: int = os.cpu_count() or 1,
    ) -> None:
        """`idle` is the machine's idle time in seconds; while it says None, nothing is held back."""
        self._idle, self._clock, self._processors = idle, clock, processors
        self._lock = threading.Lock()
        self._at = self._looked = clock()
        self._was = idle()
        self._free = 0.0 if self._known else float(processors)
        self._rate = self._least if self._known else float(processors)
        """Seconds a second that events may cost."""
        self._left = self._rate * _SAVED
        self._spent = 0.0
        self._told = 0
        self._seconds, self._events = _COST * _WEIGHT, float(_WEIGHT)
        self._cost = _COST

    def events(self, most: int) -> int:
        """How many events may be taken now, at most `most`; `take` says how many were."""
        with self._lock:
            now = self._clock()
            if now - self._looked >= _LEAST:
                self._look(now)
            self._left = min(self._left + self._rate * (now - self._at), self._rate * _SAVED)
            self._at = now
            return max(0, min(most, int(self._left / self._cost)))

    def take(self, events: int) -> None:
        """So many events are taken."""
        with self._lock:
            self._left = max(self._left - events * self._cost, -self._rate * _SAVED)

    def spend(self, seconds: float, events: int = 0) -> None:
        """Telling took so many seconds of a processor, and is over for so many events."""
        with self._lock:
            self._spent += seconds
            self._told += events

    def pause(self, cost: float) -> float:
        """Seconds for which a list is used that took `cost` seconds, as things are now."""
        share = min(WALK, max(WALKS * self._processors, self._free))
        return min(cost / share, LONGEST)

    @property
    def _known(self) -> bool:
        return self._was is not None

    @property
    def _least(self) -> float:
        return EVENTS * self._processors

    def _look(self, now: float) -> None:
        """See what the machine had idle since the last look."""
        elapsed, self._looked = now - self._looked, now
        idle, was = self._idle(), self._was
        self._was = idle
        if idle is None or was is None:
            self._free = self._rate = float(self._processors)
        else:
            self._free = max((idle - was) / elapsed - RESERVE * self._processors, 0.0)
            # Half of what it used itself, so that it yields soon where others take what it leaves.
            self._rate = max(self._least, self._free + self._spent / elapsed / 2)
        if self._told:
            self._seconds = self._seconds * _KEPT + self._spent
            self._events = self._events * _KEPT + self._told
            self._cost = min(max(self._seconds / self._events, _CHEAPEST), _DEAREST)
        self._spent, self._told = 0.0, 0


ALLOWANCE = Allowance()
"""That of this process: whatever it tells is told on the same processors."""
