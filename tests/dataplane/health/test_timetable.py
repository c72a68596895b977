"""timetable: first soon, then spread, then with jitter; and nothing of what was taken off."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.health.timetable import Timetable


def fixed(value: float) -> Timetable[str]:
    """A timetable whose dice always fall alike."""
    return Timetable(lambda: value)


@pytest.mark.parametrize(("dice", "first", "second", "third"), [(0.0, 0, 0, 4.5), (1.0, 1, 5, 5.5)])
def test_moments(dice: float, first: float, second: float, third: float) -> None:
    table = fixed(dice)
    table.add("a", 5, 100.0)
    assert table.next_due() == 100 + first
    began = 100.0 + first
    assert table.take(began) == "a"
    assert table.next_due() is None, "not before it is over"
    table.again("a", 5, began, began)
    assert table.next_due() == began + second
    began += second
    assert table.take(began) == "a"
    table.again("a", 5, began, began)
    assert table.next_due() == pytest.approx(began + third)


def test_a_check_that_takes_longer_than_the_interval_is_followed_by_the_next_at_once() -> None:
    table = fixed(0.5)
    table.add("a", 1, 0.0)
    assert table.take(9.0) == "a"
    table.again("a", 1, 9.0, 13.0)
    assert table.next_due() == 13.0


def test_nothing_is_due_before_its_time_and_the_earliest_comes_first() -> None:
    dice = iter((0.9, 0.1))
    table: Timetable[str] = Timetable(lambda: next(dice))
    table.add("late", 5, 0.0)
    table.add("early", 5, 0.0)
    assert table.take(0.05) is None
    assert [table.take(1.0), table.take(1.0), table.take(1.0)] == ["early", "late", None]


def test_what_was_removed_is_not_due_and_does_not_come_back() -> None:
    table = fixed(0.0)
    table.add("a", 5, 0.0)
    table.remove("a")
    table.remove("a")
    assert table.next_due() is None
    table.again("a", 5, 0.0, 0.0)
    assert table.take(99.0) is None


def test_what_is_added_again_is_due_once() -> None:
    table = fixed(0.0)
    table.add("a", 5, 0.0)
    table.remove("a")
    table.add("a", 5, 1.0)
    assert [table.take(9.0), table.take(9.0)] == ["a", None]


def test_what_comes_and_goes_leaves_nothing_behind() -> None:
    table = fixed(0.5)
    for number in range(10_000):
        table.add(str(number), 3600, 0.0)
        table.remove(str(number))
    assert len(table._queue) < 100


@given(st.integers(0, 2**32), st.sampled_from([1, 5, 60]))
def test_checks_keep_their_interval_to_a_tenth_and_drift_apart(seed: int, interval: int) -> None:
    table: Timetable[int] = Timetable(random.Random(seed).random)
    moments: dict[int, list[float]] = {number: [] for number in range(20)}
    now = 0.0
    for number in moments:
        table.add(number, interval, now)
    while (due := table.next_due()) is not None and due < 6 * interval:
        now = due
        key = table.take(now)
        assert key is not None
        moments[key].append(now)
        table.again(key, interval, now, now)
    for first, second, *rest in moments.values():
        assert first <= 1
        assert second - first <= interval
        gaps = [later - earlier for earlier, later in zip([second, *rest], rest, strict=False)]
        assert all(0.9 * interval <= gap <= 1.1 * interval + 1e-9 for gap in gaps)
