"""The table, and its place in a page."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.report import goals, markdown, show, write
from benchmarks.results import Measurement, Run
from benchmarks.workloads import WORKLOADS
from rig import RigError

FIGURES = {"routing": 60e9, "marchproxy-tc": 58.5e9, "nftables": 50e9}


def run_of(**changes: float) -> Run:
    """One round of one workload; keywords replace figures, with `_` for `-`."""
    figures = FIGURES | {name.replace("_", "-"): value for name, value in changes.items()}
    run = Run({"kernel": "6.18"}, dict.fromkeys(figures, "1.0"), rounds=1, seconds=2)
    run.measurements += [
        Measurement(0, "bulk-up", name, value, busy=2 / value) for name, value in figures.items()
    ]
    return run


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (58.5e9, "0.97 of routing, goal 0.95 met; ahead of nftables NAT (0.83)"),
        (54e9, "0.90 of routing, goal 0.95 MISSED; ahead of nftables NAT (0.83)"),
        (48e9, "0.80 of routing, goal 0.95 MISSED; BEHIND nftables NAT (0.83)"),
    ],
)
def test_goals_are_judged_by_routing_and_by_the_best_of_the_others(figure: float, said: str) -> None:
    assert list(goals(run_of(marchproxy_tc=figure))) == [f"one TCP stream up: {said}"]


def test_the_terminal_table_fits_80_columns_and_names_failures() -> None:
    run = run_of()
    run.failures.append("round 1/1  HAProxy TCP: haproxy ended")
    stream = io.StringIO()
    show(run, Console(file=stream, width=80))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("MarchProxy TC" in line and "58.5" in line and "0.97" in line for line in lines)
    # 2 / 58.5e9 s for a bit.
    assert any("MarchProxy TC" in line and "273.5 (1.03)" in line for line in lines)
    assert lines[-1] == "failed: round 1/1  HAProxy TCP: haproxy ended"


def test_markdown_has_a_column_for_everyone_and_says_what_was_not_measured() -> None:
    head, rule, first, *others = markdown(run_of()).splitlines()
    assert head == "| | plain routing | MarchProxy TC | nftables NAT |"
    assert rule.count("---") == 4
    assert first.startswith("| one TCP stream up, Gbit/s | 60.0 (60.0-60.0)<br>1.00 (1.00-1.00) | 58.5")
    unmeasured = [line for line in others if line.endswith(" - |")]
    assert [line.count(" - ") for line in unmeasured] == [3] * 2 * (len(WORKLOADS) - 1)
    assert "* kernel: 6.18" in others
    assert any(
        line.startswith("| one TCP stream up, ms/GB | 266.7 (266.7-266.7)<br>1.00 |") for line in others
    )


def test_gateways_are_judged_by_throughput_and_by_processor_time() -> None:
    run = run_of(marchproxy_gateway=30e9, nftables_gateway=24e9)
    assert list(goals(run))[1:] == [
        "one TCP stream up, gateway: 1.25 of nftables with the same policy, goal 1.00 met",
        "one TCP stream up, gateway: 1.25 of nftables' work for the same processor time, "
        "goal 1.00 met, aim 1.50",
    ]


def test_only_what_stands_between_the_markers_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "PAGE.md"
    page.write_text("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n")
    write(page, "bench", "new")
    assert page.read_text() == "before\n<!-- bench: begin -->\nnew\n<!-- bench: end -->\nafter\n"


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "PAGE.md"
    page.write_text("<!-- bench: begin -->\n")
    with pytest.raises(RigError, match=r"PAGE\.md has no place for bench"):
        write(page, "bench", "new")
    assert page.read_text() == "<!-- bench: begin -->\n"
