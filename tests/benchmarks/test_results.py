"""Medians, ratios, and what is kept of a run."""

from pathlib import Path

import pytest

from benchmarks.results import Measurement, Run, Spread
from rig import RigError


def run_with(*figures: tuple[int, str, float]) -> Run:
    """Figures as (round, contender, value) of one workload."""
    run = Run({"kernel": "6.18"}, {"routing": "the kernel", "nginx": "1.22"}, rounds=3, seconds=2)
    run.measurements += [
        Measurement(number, "bulk-up", name, value, busy=2 / value) for number, name, value in figures
    ]
    return run


def test_ratios_compare_within_a_round() -> None:
    run = run_with(
        (0, "routing", 10),
        (0, "nginx", 5),
        (1, "routing", 100),
        (1, "nginx", 90),
        (2, "routing", 40),
        (2, "nginx", 24),
    )
    found = run.summary("bulk-up", "nginx")
    assert found is not None
    assert found.value == Spread(24, 5, 90)
    assert found.ratio == Spread(0.6, 0.5, 0.9)
    assert found.busy == Spread(2 / 24, 2 / 90, 2 / 5)
    assert found.busy_ratio.high == pytest.approx(2)


def test_a_round_without_plain_routing_does_not_count() -> None:
    run = run_with((0, "routing", 10), (0, "nginx", 5), (1, "nginx", 1000))
    found = run.summary("bulk-up", "nginx")
    assert found is not None
    assert found.value == Spread(5, 5, 5)


def test_who_was_not_measured_has_no_summary() -> None:
    run = run_with((0, "routing", 10))
    assert run.summary("bulk-up", "nginx") is None
    assert run.summary("datagrams", "routing") is None


def test_a_run_is_read_as_it_was_saved(tmp_path: Path) -> None:
    run = run_with((0, "routing", 10), (0, "nginx", 5))
    run.failures.append("round 2: nginx ended")
    path = tmp_path / "results" / "run.json"
    run.save(path)
    assert Run.load(path) == run


def test_what_another_version_saved_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    run_with((0, "routing", 10)).save(path)
    path.write_text(path.read_text().replace('"busy"', '"effort"'))
    with pytest.raises(RigError, match="is no saved run of this version"):
        Run.load(path)
