"""Figures of series are kept and found again."""

from pathlib import Path

import pytest

from benchmarks.series.results import Point, Run, spread
from rig import RigError


def run() -> Run:
    points = [
        Point("messages", line, step, number, 1000.0 * step, 1e-5, 2e-6, 3e-6)
        for line in ("plain routing", "MarchProxy TC")
        for step in (1024, 64)
        for number in range(2)
    ]
    return Run({"kernel": "6.18"}, 2, 0.5, points, ["messages: no"])


def test_a_run_is_read_as_it_was_saved(tmp_path: Path) -> None:
    file = tmp_path / "results" / "series.json"
    run().save(file)
    assert Run.load(file) == run()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text('{"points": [{"line": 1}]}')
    with pytest.raises(RigError, match="no saved run of series"):
        Run.load(file)


def test_lines_keep_their_order_and_steps_are_sorted() -> None:
    assert run().lines("messages") == ["plain routing", "MarchProxy TC"]
    assert run().steps("messages") == [64, 1024]
    assert [one.round for one in run().of("messages", "MarchProxy TC", 64)] == [0, 1]
    assert run().of("messages", "nobody", 64) == []


def test_nothing_has_no_spread() -> None:
    assert spread([]) is None
    found = spread([3.0, 1.0, 2.0])
    assert found is not None
    assert (found.low, found.median, found.high) == (1.0, 2.0, 3.0)
