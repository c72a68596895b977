"""Rates and curves from answers of the daemon."""

import pytest

from marchproxy.tui.facts import KEPT, History, Rates, Sample, Totals, flow_count
from tests.cli.console import STATUS


def status(packets: int, bytes_: int, denied: int) -> dict[str, object]:
    counters = {"FORWARDED": {"packets": packets, "bytes": bytes_}, "HANDED_OFF": {"packets": 1, "bytes": 8}}
    return {**STATUS, "counters": counters, "denied": [{"packets": denied}]}


def test_what_is_carried_and_what_is_denied() -> None:
    assert Totals.of(status(10, 1000, 3), 5.0) == Totals(5.0, 11, 1008, 3)
    assert Totals.of({**STATUS, "counters": {}, "denied": []}, 0.0) == Totals(0.0, 0, 0, 0)


def test_two_answers_make_a_rate() -> None:
    history = History()
    assert history.add(status(10, 1000, 3), 100.0) is None
    assert history.latest is None
    assert history.add(status(30, 6000, 4), 102.0) == Sample(20_000.0, 10.0, 0.5, 125)
    assert history.curve("bits", 3) == [0.0, 0.0, 20_000.0]


def test_counters_that_began_anew_are_no_traffic() -> None:
    history = History()
    history.add(status(10, 1000, 3), 100.0)
    sample = history.add(status(1, 100, 0), 101.0)
    assert sample is not None
    assert (sample.bits, sample.packets, sample.denied) == (0.0, 0.0, 0.0)


def test_curves_are_bounded() -> None:
    history = History()
    for second in range(KEPT + 50):
        history.add(status(second, second, 0), float(second))
    assert len(history.samples) == KEPT
    assert len(history.curve("packets", 20)) == 20


@pytest.mark.parametrize(
    ("used", "flows"),
    [
        ({"flows": 42, "opening": 900, "ports of 10.2.0.1": 28, "tunnels": 2, "associations": 1}, 24),
        ({"connections": 7, "sessions": 5, "tunnels": 1}, 13),
        ({}, 0),
    ],
)
def test_every_tier_s_flows_are_counted_once(used: dict[str, int], flows: int) -> None:
    tables = [{"name": name, "used": count, "limit": 1000} for name, count in used.items()]
    assert flow_count({**STATUS, "flow_table": tables}) == flows


def test_rates_of_rows_that_stay() -> None:
    rates = Rates[int]()
    assert rates.of({1: 100, 2: 50}, 10.0) == {}
    assert rates.of({1: 300, 3: 9}, 12.0) == {1: 100.0}
    assert rates.of({1: 100, 3: 9}, 13.0) == {1: 0.0, 3: 0.0}
