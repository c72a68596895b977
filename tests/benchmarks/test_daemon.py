"""Figures about the daemon, and their goals."""

import pytest

from benchmarks.daemon import Figure, markdown


@pytest.mark.parametrize(
    ("figure", "met", "texts"),
    [
        (Figure("start", 0.4567, "s", 1.0), True, ("start", "0.457 s", "at most 1 s")),
        (Figure("start", 1.01, "s", 1.0), False, ("start", "1.01 s", "at most 1 s")),
        (Figure("share", 0.97, "", 0.95, at_least=True), True, ("share", "0.97", "at least 0.95")),
        (Figure("share", 0.9, "", 0.95, at_least=True), False, ("share", "0.9", "at least 0.95")),
        (Figure("memory", 96.4, "MB"), True, ("memory", "96.4 MB", "")),
    ],
)
def test_a_figure_knows_its_goal(figure: Figure, met: bool, texts: tuple[str, str, str]) -> None:
    assert figure.met is met
    assert figure.texts() == texts


def test_the_table_of_the_page_says_where_it_was_measured() -> None:
    facts = {"date": "2026-01-01", "kernel": "6.18", "processor": "2 x EPYC"}
    assert markdown([Figure("start", 0.5, "s", 1.0)], facts).splitlines() == [
        "| | measured | goal |",
        "|---|---|---|",
        "| start | 0.5 s | at most 1 s |",
        "",
        "2026-01-01, kernel 6.18, 2 x EPYC.",
    ]
