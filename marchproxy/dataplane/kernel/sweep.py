"""When to look for idle flows."""

import time

from marchproxy.dataplane.kernel.flows import FlowTable, Report

INTERVAL = 5.0
SHARE = 0.02


class Sweep:
    """Expires idle flows every five seconds, or less often where that would cost over 2 % of a CPU."""

    def __init__(self, table: FlowTable) -> None:
        self._table = table
        self._due = 0.0
        self.established = 0
        """Entries in the established table, at the last sweep."""

    def turn(self, report: Report) -> None:
        """Sweep if it is time."""
        started = time.monotonic()
        if started < self._due:
            return
        self.established = self._table.expire(report)
        took = time.monotonic() - started
        self._due = started + max(INTERVAL, took / SHARE)
