"""Waiting for a condition instead of for time."""

import time
from collections.abc import Callable

from marchproxy.model.errors import MarchproxyError

INTERVAL = 0.01
"""Seconds between two looks."""
PATIENCE = 30.0
"""Seconds for what should be so at once: where it is, patience costs nothing; a machine may stand still."""


class RigError(MarchproxyError):
    """The rig could not do its part: a program is missing, failed, or did not answer in time."""


def wait_for[T](condition: Callable[[], T | None], what: str, *, timeout: float = PATIENCE) -> T:
    """The first true value of `condition`, asked again and again; `RigError` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise RigError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(INTERVAL)
    return value
