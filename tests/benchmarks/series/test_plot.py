"""Charts: the same bytes for the same figures, small, and with everything labelled."""

import xml.etree.ElementTree as ET

import pytest

from benchmarks.series.plot import HEIGHT, Chart, Dot, Line, draw

SVG = "{http://www.w3.org/2000/svg}"


def chart(*figures: float, title: str = "flows & blocks") -> Chart:
    dots = tuple(Dot(at, figure, figure * 0.9, figure * 1.1) for at, figure in enumerate(figures))
    steps = tuple(f"{10**at:,}" for at in range(len(figures)))
    return Chart(title, "flows <1 M", "ns a packet", steps, (Line("TC", dots), Line("XDP", dots[:2])))


def elements(drawn: str, kind: str) -> list[ET.Element]:
    return list(ET.fromstring(drawn).iter(f"{SVG}{kind}"))  # noqa: S314  # our own


def texts(drawn: str) -> list[str]:
    return ["".join(each.itertext()) for each in elements(drawn, "text")]


def test_a_chart_is_the_same_every_time_and_small() -> None:
    drawn = draw(chart(124, 636, 858, 1033))
    assert drawn == draw(chart(124, 636, 858, 1033))
    assert len(drawn) < 30_000


def test_title_axes_steps_and_lines_are_named() -> None:
    said = texts(draw(chart(124, 636, 858, 1033)))
    assert {"flows & blocks", "flows <1 M", "ns a packet", "TC", "XDP", "1", "1,000", "0"} <= set(said)


def test_a_line_goes_by_its_medians_and_a_line_for_each_dot_by_the_spread() -> None:
    first, second = elements(draw(chart(100, 200, 400)), "polyline")
    assert len(first.attrib["points"].split()) == 3
    assert len(second.attrib["points"].split()) == 2
    heights = [float(point.split(",")[1]) for point in first.attrib["points"].split()]
    assert heights == sorted(heights, reverse=True)
    assert all(0 < height < HEIGHT for height in heights)


@pytest.mark.parametrize(
    ("figures", "ticks"),
    [
        ((10.0, 9000.0), ["1", "10", "100", "1,000", "10,000"]),
        ((-20.0, 30.0), ["-40", "-20", "0", "20", "40"]),
        ((0.0, 0.0), ["0", "0.05", "0.1", "0.15", "0.2"]),
        ((1.2, 1.4), ["0", "0.5", "1", "1.5", "2"]),
    ],
)
def test_ticks_are_round_and_hold_all_figures(figures: tuple[float, ...], ticks: list[str]) -> None:
    left = [each for each in elements(draw(chart(*figures)), "text") if each.attrib["text-anchor"] == "end"]
    assert [each.text for each in left] == ticks
