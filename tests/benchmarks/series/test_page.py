"""Tables and charts of series, and where they go."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.report import MORE_PAGE as PAGE
from benchmarks.series.__main__ import ALL
from benchmarks.series.live import SERIES
from benchmarks.series.packets import SERIES as PACKET_SERIES
from benchmarks.series.page import PLOTS, chart, markdown, measures, publish, rows, show
from benchmarks.series.results import Point, Run

MESSAGES, FLOWS = SERIES[0], PACKET_SERIES[0]
FACTS = {"date": "2026-01-01", "kernel": "6.18", "processor": "2 x EPYC", "load before": "0.1"}


@pytest.fixture
def run() -> Run:
    points = [
        Point("messages", line, step, number, 50e3 + number * 1e3, 36e-6, 9e-6, 18e-6)
        for line, steps in (("plain routing", (64, 1024)), ("MarchProxy TC", (64,)))
        for step in steps
        for number in range(3)
    ]
    points += [Point("flows", "TC", step, 0, step * 1e-9) for step in (1, 1000)]
    return Run(FACTS, 3, 0.5, points, ["messages  round 1/3: it broke", "flows: slow"])


def test_cells_have_work_processor_time_and_whose_it_was(run: Run) -> None:
    titles, first, second = rows(run, MESSAGES)
    assert titles == ("bytes a message", "plain routing", "MarchProxy TC")
    assert first[:2] == ("64", "51.0 (50.0-52.0)<br>36.0 [25, 50 %]")
    assert second[0::2] == ("1,024", "-")
    assert list(rows(run, FLOWS))[1:] == [("1", "1 (1-1)"), ("1,000", "1,000 (1,000-1,000)")]


def test_a_chart_leaves_out_what_was_not_measured(run: Run) -> None:
    drawn = chart(run, MESSAGES, measures(MESSAGES)[1])
    assert drawn.steps == ("64", "1,024")
    assert [len(line.dots) for line in drawn.lines] == [2, 1]
    assert drawn.lines[0].dots[0].median == pytest.approx(36.0)


def test_a_section_shows_its_charts_and_its_own_failures(run: Run) -> None:
    text = markdown(run, MESSAGES)
    assert "](plots/messages.svg)" in text
    assert "](plots/messages-work.svg)" in text
    assert "it broke" in text
    assert "slow" not in text
    assert "3 rounds of 0.5 s" in text


def test_only_what_was_measured_is_published(run: Run, tmp_path: Path) -> None:
    page, plots = tmp_path / "PAGE.md", tmp_path / "plots"
    page.write_text(
        "".join(f"<!-- series-{one.name}: begin -->\nold\n<!-- series-{one.name}: end -->\n" for one in ALL)
    )
    publish(run, ALL, page, plots)
    assert sorted(path.name for path in plots.iterdir()) == ["flows.svg", "messages-work.svg", "messages.svg"]
    assert page.read_text().count("old") == len(ALL) - 2


def test_the_terminal_shows_tables_and_failures(run: Run) -> None:
    console = Console(width=160, file=StringIO())
    show(run, ALL, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]  # of the StringIO
    assert "bytes a message" in said
    assert "failed: flows: slow" in said


def test_the_page_has_a_place_for_each_series_and_a_chart_of_each_measure() -> None:
    page = PAGE.read_text()
    for series in ALL:
        assert f"<!-- series-{series.name}: begin -->" in page
        for measure in measures(series):
            name = f"{series.name}{measure.suffix}.svg"
            assert f"plots/{name}" in page
            assert (PLOTS / name).stat().st_size < 30_000
