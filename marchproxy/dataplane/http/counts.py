"""What is counted about HTTP since the start; known before any is spoken, so that no metric is missing."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Changes:
    """About backends, and requests to them."""

    ejected: int = 0
    returned: int = 0
    kept: int = 0
    """Backends that stayed although they failed: too few others were left."""
    retried: int = 0
    unretried: int = 0
    """Requests that would have been sent again, but for the budget."""
    waited: int = 0
    """For room with a backend."""
    crowded: int = 0
    """Refused for want of it."""


@dataclass(slots=True)
class Mirrored:
    """About copies of requests."""

    mirrored: int = 0
    """Copies that were answered, whatever the answer."""
    mirror_failed: int = 0
    """Not answered: no connection, a broken one, no time left."""
    mirror_dropped: int = 0
    """Not sent: too large, too many at one time, denied or blocked, no backend, given up by the client."""


def by_name(changes: Changes, mirrored: Mirrored) -> Mapping[str, int]:
    """Both, as metrics name them."""
    return {**asdict(changes), **asdict(mirrored)}
