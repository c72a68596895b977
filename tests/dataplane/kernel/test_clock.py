"""clock: kernel times are times of day."""

import time

from marchproxy.dataplane.kernel.clock import KernelClock


def test_now_is_now() -> None:
    clock = KernelClock()
    assert abs(clock.wall(time.clock_gettime_ns(time.CLOCK_MONOTONIC)) - time.time()) < 1


def test_earlier_is_earlier() -> None:
    clock = KernelClock()
    assert clock.wall(clock.monotonic) - clock.wall(clock.monotonic - 90 * 10**9) == 90
