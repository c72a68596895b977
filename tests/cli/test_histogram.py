"""histogram: what is drawn of times."""

import pytest

from marchproxy.cli.histogram import microseconds, show
from tests.cli.console import Console, Screen

ROW = {
    "service": "shop",
    "what": "connect",
    "count": 5,
    "mean_us": 850.0,
    "histogram": [{"from_us": 256, "to_us": 511, "count": 1}, {"from_us": 1024, "to_us": 2047, "count": 4}],
}


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 µs"), (850.0, "850 µs"), (1024, "1.02 ms"), (4_194_304, "4.19 s")]
)
def test_microseconds(count: float, text: str) -> None:
    assert microseconds(count) == text


def test_bars_are_as_long_as_there_are_many_and_gaps_are_shown(console: Console) -> None:
    environment = console.environment()
    show(environment, [ROW])
    assert isinstance(environment.stdout, Screen)
    title, *lines = environment.stdout.getvalue().splitlines()
    assert title.rstrip() == "shop  connect: 5, mean 850 µs"
    assert [(line.split("█")[0].split(), line.count("█")) for line in lines] == [
        (["256", "µs", "to", "512", "µs", "1"], 10),
        (["512", "µs", "to", "1.02", "ms", "0"], 0),
        (["1.02", "ms", "to", "2.05", "ms", "4"], 40),
    ]


def test_what_has_no_time_is_a_line(console: Console) -> None:
    environment = console.environment()
    show(
        environment, [{"service": "[b]x", "what": "unanswered", "count": 2, "mean_us": None, "histogram": []}]
    )
    assert isinstance(environment.stdout, Screen)
    assert environment.stdout.getvalue().rstrip() == "[b]x  unanswered: 2"


def test_nothing_measured_is_said(console: Console) -> None:
    environment = console.environment()
    show(environment, [])
    assert isinstance(environment.stdout, Screen)
    assert "no connection was opened" in environment.stdout.getvalue()
