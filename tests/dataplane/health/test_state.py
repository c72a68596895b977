"""state: rise, fall, and nothing in between."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.health.state import Health


def play(results: str, *, rise: int = 2, fall: int = 3) -> str:
    """The state after each result: `+` and `-` in, `U` and `d` out."""
    health = Health(rise, fall, 0.0)
    states = ""
    for moment, result in enumerate(results, start=1):
        health.observe("" if result == "+" else "refused", float(moment))
        states += "U" if health.up else "d"
    return states


@pytest.mark.parametrize(
    ("results", "states"),
    [
        ("+++", "UUU"),
        ("-", "d"),
        ("+--", "UUU"),
        ("+---", "UUUd"),
        ("+--+--+---", "UUUUUUUUUd"),
        ("-+", "dd"),
        ("-++", "ddU"),
        ("-+-++", "ddddU"),
        ("-++---", "ddUUUd"),
        ("+-+-+-+-+-", "UUUUUUUUUU"),
        ("-+-+-+-+", "dddddddd"),
    ],
)
def test_it_takes_fall_failures_or_rise_successes_in_a_row(results: str, states: str) -> None:
    assert play(results) == states


def test_before_the_first_check_it_is_up() -> None:
    health = Health(2, 3, 5.0)
    assert (health.up, health.checked, health.since, health.why) == (True, False, 5.0, "")


def test_changes_are_told_with_their_moment_and_the_reason_stays() -> None:
    health = Health(1, 2, 0.0)
    assert not health.observe("", 1.0)
    assert not health.observe("refused", 2.0)
    assert (health.up, health.why, health.since) == (True, "refused", 0.0)
    assert health.observe("HTTP 503", 3.0)
    assert (health.up, health.why, health.since) == (False, "HTTP 503", 3.0)
    assert not health.observe("refused", 4.0)
    assert health.observe("", 5.0)
    assert (health.up, health.why, health.since) == (True, "", 5.0)


def test_other_numbers_hold_from_the_next_result_on() -> None:
    health = Health(2, 9, 0.0)
    for moment in range(4):
        assert not health.observe("" if not moment else "refused", float(moment))
    health.follow(2, 4)
    assert health.observe("refused", 9.0)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_it_changes_no_faster_than_rise_and_fall(results: list[bool], rise: int, fall: int) -> None:
    health = Health(rise, fall, 0.0)
    changed: list[int] = []
    for number, succeeded in enumerate(results):
        if health.observe("" if succeeded else "refused", 0.0):
            changed.append(number)
            needed = 1 if number == 0 else rise if succeeded else fall
            assert set(results[max(0, number - needed + 1) : number + 1]) == {succeeded}
    assert all(later - earlier >= min(rise, fall) for earlier, later in pairwise(changed))
