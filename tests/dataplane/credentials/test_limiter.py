"""Who guesses, waits."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.credentials.limiter import (
    FAILURES,
    LONGEST,
    MOST_SOURCES,
    WINDOW,
    FailureLimiter,
)

CLIENT = ip_address("192.0.2.7")


def failing(times: int, *, address: str = "192.0.2.7", now: float = 0.0) -> FailureLimiter:
    limiter = FailureLimiter()
    for _ in range(times):
        limiter.failed(ip_address(address), now)
    return limiter


def test_a_few_failures_are_free() -> None:
    assert failing(FAILURES - 1).wait(CLIENT, 0) == 0


def test_the_tenth_within_a_minute_has_to_wait() -> None:
    limiter = failing(FAILURES)
    assert limiter.wait(CLIENT, 0) == 1
    assert limiter.wait(CLIENT, 0.4) == pytest.approx(0.6)
    assert limiter.wait(CLIENT, 1) == 0


def test_waits_double_up_to_a_minute() -> None:
    limiter, now, waits = failing(FAILURES - 1), 0.0, []
    for _ in range(9):
        limiter.failed(CLIENT, now)
        waits.append(limiter.wait(CLIENT, now))
        now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, LONGEST, LONGEST, LONGEST]


def test_failures_that_are_spread_out_are_free() -> None:
    limiter = FailureLimiter()
    for turn in range(200):
        limiter.failed(CLIENT, turn * (WINDOW / (FAILURES - 1)) + 0.001 * turn)
        assert limiter.wait(CLIENT, turn * (WINDOW / (FAILURES - 1)) + 0.001 * turn) == 0


def test_a_quiet_minute_forgives() -> None:
    limiter = failing(FAILURES + 3)
    assert limiter.wait(CLIENT, 0) == 8
    limiter.failed(CLIENT, 8 + WINDOW)
    assert limiter.wait(CLIENT, 8 + WINDOW) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.7", "192.0.2.8", False),
        ("192.0.2.7", "::ffff:192.0.2.7", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::", "0.0.0.0", False),
    ],
)
def test_who_is_the_same_source(one: str, other: str, same: bool) -> None:
    limiter = failing(FAILURES, address=one)
    assert (limiter.wait(ip_address(other), 0) > 0) is same


def test_memory_is_bounded() -> None:
    limiter = failing(FAILURES)
    for number in range(MOST_SOURCES - 1):
        limiter.failed(ip_address(number + 1), 0)
    assert (len(limiter), limiter.wait(CLIENT, 0)) == (MOST_SOURCES, 1)
    limiter.failed(ip_address("2001:db8::"), 0)
    assert (len(limiter), limiter.wait(CLIENT, 0)) == (MOST_SOURCES, 0), "who failed longest ago is forgotten"


@given(st.lists(st.floats(-1e9, 1e9), max_size=60), st.floats(-1e9, 1e9))
def test_clocks_may_jump(instants: list[float], now: float) -> None:
    limiter = FailureLimiter()
    for instant in instants:
        limiter.failed(CLIENT, instant)
    assert 0 <= limiter.wait(CLIENT, now) <= LONGEST
    assert len(limiter) <= 1
