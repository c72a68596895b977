"""Memory of a process that runs for long, once what it starts with is there."""

import ctypes
import gc
from contextlib import suppress


def settle(*, trim: bool = True) -> None:
    """Look for garbage, and keep what is left out of the collector's sight; `trim`: give back what was freed,
    too, which is for the start: what is given back has to be asked for again.

    A policy of ten thousand mappings would cost a fifth of a second whenever the collector looks through
    everything. And the C library keeps what it took for a moment: after loading programs, some megabytes.
    """
    gc.collect()
    gc.freeze()
    if not trim:
        return
    # glibc's own; others give back by themselves.
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
