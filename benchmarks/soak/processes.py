"""Processes that are killed, or replaced, while they work."""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from benchmarks.processor import family
from benchmarks.soak.scene import Scene


@contextmanager
def _away(scene: Scene) -> Iterator[None]:
    """The operator rests while there is no daemon."""
    assert scene.operator is not None
    scene.operator.pausing.set()
    try:
        yield
    finally:
        scene.operator.pausing.clear()


def kill_daemon(scene: Scene, _: random.Random) -> None:
    """SIGKILL, and another one that takes over."""
    with _away(scene):
        scene.appliance.kill9()
        scene.start()


def upgrade(scene: Scene, _: random.Random) -> None:
    """It ends in order, and the next one adopts what is in the kernel."""
    with _away(scene):
        scene.appliance.stop()
        scene.start()


def kill_worker(scene: Scene, draw: random.Random) -> None:
    """SIGKILL for a child of the daemon, which replaces it."""
    daemon = scene.appliance.daemon
    workers = family(daemon.pid)[1:] if daemon else []
    if workers:
        with suppress(ProcessLookupError):
            os.kill(draw.choice(workers), signal.SIGKILL)
