"""Backends that requests leave out, as states beside those of checks, and told when they change."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from marchproxy.dataplane.records import BackendState, Outlier
from marchproxy.model.address import IPAddress
from marchproxy.model.endpoint import Endpoint

log = logging.getLogger(__name__)

CHECK = "requests"
"""What stands for the check in the states of these."""


class Outliers:
    """Follows what the processes that carry requests say."""

    def __init__(self, tell: Callable[[BackendState], None]) -> None:
        """`tell` hears of each backend that is left out by the first of them, or no longer by any."""
        self._tell = tell
        self._known: dict[tuple[str, IPAddress, int], BackendState] = {}

    def look(self, outliers: Sequence[Outlier]) -> None:
        """These are all now."""
        if not outliers and not self._known:
            return
        found = {(each.service, each.address, each.port): state_of(each) for each in outliers}
        before, self._known = self._known, found
        for key in found.keys() - before.keys():
            self._announce(found[key])
        for key in before.keys() - found.keys():
            self._announce(replace(before[key], up=True, since=time.time(), why=""))

    def states(self) -> Sequence[BackendState]:
        """Those that are left out."""
        return list(self._known.values())

    def _announce(self, state: BackendState) -> None:
        where = Endpoint(state.address, state.port)
        if state.up:
            log.info("%s of %s gets requests again", where, state.service)
        else:
            log.warning("%s of %s gets no requests for a while: %s", where, state.service, state.why)
        self._tell(state)


def state_of(outlier: Outlier) -> BackendState:
    """As others see it."""
    several = f" (in {outlier.processes} processes)" if outlier.processes > 1 else ""
    return BackendState(
        service=outlier.service,
        address=outlier.address,
        port=outlier.port,
        check=CHECK,
        up=False,
        checked=True,
        drained=False,
        since=outlier.since,
        why=f"{outlier.why}{several}",
    )
