"""Programs of the client that open connections first, and do what is measured when they are told to."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.bed import Bed
from rig import RigError


@contextmanager
def opened(bed: Bed, argv: Sequence[str], seconds: int) -> Iterator[Callable[[], str]]:
    """One that said `open`; what is called within lets it go on (SIGUSR1), and gives what it then printed."""
    asking = bed.rig.client.popen(argv)
    try:
        asking.expect("open\n")

        def go_on() -> str:
            asking.signal(signal.SIGUSR1)
            if asking.wait(seconds + 10):
                raise RigError("what was asked had no right answer", hint=asking.tail())
            return asking.output().partition("open\n")[2]

        yield go_on
    finally:
        asking.stop()
