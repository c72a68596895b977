"""How series of traffic go: contenders in turn, steps while they stand, failures told."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import Mock

import pytest

from benchmarks.bed import DATAGRAMS, PINGPONG, Bed
from benchmarks.contenders import Contender
from benchmarks.series.live import MappingsNftables, Series, Stand, at_once, exchange, measure, streams
from benchmarks.series.results import Run
from rig import Rig, RigError


class Invented(Contender):
    """Carries nothing, and writes down when it stands."""

    name = title = "Invented"

    def __init__(self, bed: Bed, fails: bool = False) -> None:
        super().__init__(bed)
        self.fails = fails
        self.steps: list[str] = []

    def version(self) -> str:
        return "0"

    def wait_ready(self) -> None:
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
def bed() -> Mock:
    return Mock(spec=Bed, rig=Mock())


def measured(bed: Mock, contender: Invented) -> Run:
    def figure(_bed: Bed, target: str, step: int, seconds: float) -> float:
        contender.steps.append(f"{target} {step} {seconds}")
        return 100.0 * step

    run = Run({}, 2, 0.5)
    stands = [Stand(contender, (1, 8))]
    series = Series("s", "a series", "steps", "k/s", 1e3, "µs/piece", 1e6, lambda _: stands, figure)
    measure(run, bed, series, lambda _line: None)
    return run


def test_a_contender_stands_once_a_round_for_all_steps(bed: Mock) -> None:
    contender = Invented(bed)
    run = measured(bed, contender)
    assert contender.steps == ["up", "10.1.0.1 1 0.5", "10.1.0.1 8 0.5", "down"] * 2
    assert [(one.step, one.round, one.value) for one in run.points] == [
        *((1, 0, 100.0), (8, 0, 800.0), (1, 1, 100.0), (8, 1, 800.0))
    ]
    assert not run.failures


def test_one_that_fails_is_named_and_taken_away(bed: Mock) -> None:
    contender = Invented(bed, fails=True)
    run = measured(bed, contender)
    assert not run.points
    assert run.failures[0] == "s  round 1/2  Invented: it ended no such option"
    assert contender.steps == ["up", "down"] * 2


def test_what_a_step_needs_is_done_before_each_of_its_figures(bed: Mock) -> None:
    done: list[str] = []

    def figure(_bed: Bed, _target: str, step: int, _seconds: float) -> float:
        done.append(f"figure {step}")
        return 1.0

    stands = [Stand(Invented(bed), (1, 8))]
    series = Series(
        *("s", "a series", "steps", "k/s", 1e3, "µs/piece", 1e6, lambda _: stands, figure),
        prepare=lambda _bed, step: done.append(f"before {step}"),
    )
    measure(Run({}, 1, 0.5), bed, series, lambda _line: None)
    assert done == ["before 1", "figure 1", "before 8", "figure 8"]


def test_contenders_that_cannot_be_made_are_a_failure_of_their_series(bed: Mock) -> None:
    def none(_bed: Bed) -> list[Stand]:
        raise RigError("nft is not installed", hint="needed for: nft --version")

    run = Run({}, 2, 0.5)
    series = Series("s", "a series", "steps", "k/s", 1e3, "µs/piece", 1e6, none, at_once)
    measure(run, bed, series, lambda _line: None)
    assert run.failures == ["s: nft is not installed needed for: nft --version"]


def test_what_is_measured_is_what_the_step_says(bed: Mock) -> None:
    bed.exchange.return_value = {"answers": 50, "seconds": 0.5}
    bed.iperf.return_value = {"end": {"sum_received": {"bits_per_second": 7.0}}}
    assert exchange(8)(bed, "x", 512, 0.5) == 100.0
    bed.exchange.assert_called_with("x", PINGPONG, 0.5, sockets=8, in_flight=1, size=512)
    assert exchange(4, 16, udp=True)(bed, "x", 512, 0.5) == 200.0
    bed.exchange.assert_called_with("x", DATAGRAMS, 0.5, sockets=4, in_flight=16, size=512)
    assert at_once(bed, "x", 64, 0.5) == 100.0
    bed.exchange.assert_called_with("x", PINGPONG, 0.5, sockets=64, in_flight=1)
    assert streams(bed, "x", 16, 0.5) == 7.0
    bed.iperf.assert_called_with("x", 1, "--parallel", "16")


@pytest.mark.requires("root", "netns", "veth", commands=["nft"])
def test_netfilter_takes_ten_thousand_translations() -> None:
    with Rig() as rig:
        contender = MappingsNftables(Mock(spec=Bed, rig=rig), 10_000)
        with contender.standing():
            listed = rig.middle.run(["nft", "list", "map", "ip", "bench", "others"]).stdout
            assert listed.count(" : 198.18.") == 10_000
        assert not rig.middle.run(["nft", "list", "ruleset"]).stdout
