"""Processes that are killed while they work."""

import os
import random
import signal
import threading
from contextlib import suppress

from benchmarks.processor import family
from benchmarks.soak.change import Operator
from rig import Appliance

LEAST, MOST = 2.0, 8.0
"""Seconds between two faults."""


class Faults:
    """SIGKILL for the daemon, which is started again, and for workers, which it replaces itself."""

    def __init__(self, appliance: Appliance, operator: Operator, seed: int) -> None:
        self.daemons = self.workers = 0
        """How many were killed."""
        self._appliance = appliance
        self._operator = operator
        self._random = random.Random(seed)

    def work(self, stop: threading.Event) -> None:
        """Kill until the end."""
        while not stop.wait(self._random.uniform(LEAST, MOST)):
            if self._random.random() < 0.5:
                self._worker()
            else:
                self._daemon()

    def _worker(self) -> None:
        daemon = self._appliance.daemon
        workers = family(daemon.pid)[1:] if daemon else []
        if workers:
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(workers), signal.SIGKILL)
                self.workers += 1

    def _daemon(self) -> None:
        self._operator.pausing.set()
        try:
            self._appliance.kill9()
            self.daemons += 1
            self._appliance.start()
        finally:
            self._operator.pausing.clear()
