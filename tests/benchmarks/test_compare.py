"""How a run goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import Mock

import pytest

from benchmarks.bed import Bed
from benchmarks.compare import measure, turned
from benchmarks.contenders import Contender
from benchmarks.results import Measurement, Run
from benchmarks.workloads import Workload
from rig import RigError


class Invented(Contender):
    """Carries nothing, and writes down when it stands."""

    name = "invented"
    title = "Invented"

    def __init__(self, fails: bool) -> None:
        self.fails = fails
        self.steps: list[str] = []

    def version(self) -> str:
        return "0"

    def wait_ready(self) -> None:
        self.steps.append("ready")
        if self.fails:
            raise RigError("it ended", hint="no such option")

    @contextmanager
    def standing(self) -> Iterator[None]:
        self.steps.append("up")
        try:
            yield
        finally:
            self.steps.append("down")


@pytest.fixture
def run() -> Run:
    return Run({}, {}, rounds=3, seconds=2)


def workload(contender: Invented) -> Workload:
    """Measures 7.0 on whatever it is given."""

    def figure(_bed: object, target: str, seconds: float) -> float:
        contender.steps.append(f"{target} for {seconds} s")
        return 7.0

    return Workload("w", "work", "k/s", 1.0, "s/piece", 1.0, "tcp", 0.9, figure)


def measured(run: Run, contender: Invented) -> list[str]:
    """What is reported of one measurement."""
    said: list[str] = []
    contender.bed = Mock(spec=Bed)
    measure(run, 1, workload(contender), contender, said.append)
    return said


def test_the_order_turns_by_one_each_round() -> None:
    assert ["".join(turned("abc", number)) for number in range(4)] == ["abc", "bca", "cab", "abc"]


def test_a_contender_stands_for_its_own_measurement_only(run: Run) -> None:
    contender = Invented(fails=False)
    (said,) = measured(run, contender)
    assert said.startswith("round 2/3  work  Invented  7.0 k/s  ")
    assert contender.steps == ["up", "ready", "10.1.0.1 for 2 s", "down"]
    (made,) = run.measurements
    assert made == Measurement(1, "w", "invented", 7.0, made.busy)
    assert made.busy >= 0
    assert not run.failures


def test_a_failure_is_kept_with_its_reason_and_stops_nothing(run: Run) -> None:
    contender = Invented(fails=True)
    assert measured(run, contender) == ["round 2/3  work  Invented: it ended (no such option)"]
    assert contender.steps == ["up", "ready", "down"]
    assert not run.measurements
    assert run.failures == ["round 2/3  work  Invented: it ended (no such option)"]
