"""Kernel times (CLOCK_MONOTONIC) as times of day."""

import time


class KernelClock:
    """Converts with the offset of the moment it was made. Clocks get set: make a new one for each reading."""

    def __init__(self) -> None:
        self.monotonic = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        """Now, in nanoseconds."""
        self._offset = time.time_ns() - self.monotonic

    def wall(self, kernel: int) -> float:
        """Seconds since the epoch of a kernel time in nanoseconds."""
        return (kernel + self._offset) / 1e9
