"""runs: numbers are handed out once, and none is lost."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from marchproxy.dataplane.kernel.runs import PlanTooLarge, Runs

LIMIT = 32


class RunsMachine(RuleBasedStateMachine):
    """Takes and returns runs of a small range at random."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = Runs("things", LIMIT)
        self.held: dict[int, int] = {}
        """First number to length."""

    @rule(length=st.integers(1, 9))
    def take(self, length: int) -> None:
        try:
            self.held[self.runs.take(length)] = length
        except PlanTooLarge:
            assert self.largest_gap() < length, "refused although there was room"

    @rule(which=st.integers(0, LIMIT))
    def give_back(self, which: int) -> None:
        if self.held:
            first = sorted(self.held)[which % len(self.held)]
            self.runs.give_back(first, self.held.pop(first))

    @invariant()
    def held_runs_are_apart_and_in_range(self) -> None:
        numbers = [first + offset for first, length in self.held.items() for offset in range(length)]
        assert len(numbers) == len(set(numbers))
        assert all(0 <= number < LIMIT for number in numbers)

    def largest_gap(self) -> int:
        taken = sorted((first, first + length) for first, length in self.held.items())
        gaps, end = [0], 0
        for first, after in [*taken, (LIMIT, LIMIT)]:
            gaps.append(first - end)
            end = after
        return max(gaps)


TestRuns = RunsMachine.TestCase


def test_numbers_start_at_nought() -> None:
    runs = Runs("things", 10)
    assert [runs.take(3), runs.take(4), runs.take(3)] == [0, 3, 7]


def test_a_returned_run_goes_to_the_next_of_its_length() -> None:
    runs = Runs("things", 100)
    first, _ = runs.take(3), runs.take(3)
    runs.give_back(first, 3)
    assert runs.take(4) == 6
    assert runs.take(3) == first


def test_runs_that_touch_are_joined_when_there_is_no_other_room() -> None:
    runs = Runs("things", 6)
    for first in [runs.take(2), runs.take(2), runs.take(2)]:
        runs.give_back(first, 2)
    assert runs.take(6) == 0


def test_what_does_not_fit_is_refused_by_name() -> None:
    runs = Runs("backends", 4)
    with pytest.raises(PlanTooLarge, match="too many backends: the kernel's table holds 4") as refused:
        runs.take(5)
    assert refused.value.hint
    assert runs.take(4) == 0


def test_an_empty_run_takes_nothing() -> None:
    runs = Runs("things", 1)
    runs.give_back(runs.take(0), 0)
    assert runs.take(1) == 0
