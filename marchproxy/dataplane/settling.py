"""Memory of a process that runs for long, once what it starts with is there."""

import ctypes
import gc
from contextlib import suppress


def settle() -> None:
    """Look for garbage, keep what is left out of the collector's sight, and give back what was freed.

    A policy of ten thousand mappings would cost a fifth of a second whenever the collector looks through
    everything. And the C library keeps what it took for a moment: after loading programs, some megabytes.
    """
    gc.collect()
    gc.freeze()
    # glibc's own; others give back by themselves.
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
