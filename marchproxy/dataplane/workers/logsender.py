"""What a worker logs, on its way to the daemon."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from marchproxy.dataplane.logring import Said
from marchproxy.dataplane.workers.messages import Logged

EVERY = 0.05
"""Seconds for which records are collected."""
WAITING = 1_000
"""Records that wait for the loop."""


class LogSender:
    """Takes records from whatever thread, and says them in the loop's.

    What there is no room for is counted.
    """

    def __init__(self, say: Callable[[Logged], None]) -> None:
        """Needs a running loop."""
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Said] = deque()
        self._lost = 0
        self._scheduled = False

    def put(self, said: Said) -> None:
        """Leave a record."""
        if len(self._waiting) >= WAITING:
            self._lost += 1
            return
        self._waiting.append(said)
        if not self._scheduled:
            self._scheduled = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._loop.call_later, EVERY, self.flush)

    def flush(self) -> None:
        """Say what waits; in the loop's thread."""
        # First this, then the look: a record put in between is either said below or schedules anew.
        self._scheduled = False
        said = tuple(self._waiting.popleft() for _ in range(len(self._waiting)))
        lost, self._lost = self._lost, 0
        if said or lost:
            self._say(Logged(said, lost))
