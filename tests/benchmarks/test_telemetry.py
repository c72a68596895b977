"""Tables of telemetry: what it costs, and what becomes of events."""

from benchmarks.telemetry import COST_TITLES, FLOOD_TITLES, Figure, Flooded, cost_rows
from benchmarks.workloads import WORKLOADS

DATAGRAMS = next(each for each in WORKLOADS if each.name == "datagrams")


def test_each_event_is_sent_dropped_by_the_queue_lost_or_missing() -> None:
    flood = Flooded(50_000, 100_000, 2.0, 30_000, 10_000, 59_999, 0.5)
    assert flood.silent == 1
    assert flood.cells() == ("50,000", "50,000", "20,000", "30,000", "10,000", "59,999", "1", "50 %")
    assert len(flood.cells()) == len(FLOOD_TITLES)
    assert Flooded(0, 10, 1.0, 10, 0, 0, 0.0).cells()[0] == "as many as it goes"


def figure(value: float, busy: float, told: float = 0, lost: float = 0) -> Figure:
    return Figure(value, busy, told, lost)


def test_ratios_are_of_the_same_round() -> None:
    found = {
        ("datagrams", False): [figure(400e3, 4e-6), figure(200e3, 8e-6), figure(300e3, 5e-6)],
        ("datagrams", True): [
            figure(396e3, 4e-6, 10, 2000),
            figure(194e3, 8e-6, 30, 0),
            figure(300e3, 6e-6, 20, 1000),
        ],
    }
    (row,) = cost_rows(found, [DATAGRAMS])
    assert len(row) == len(COST_TITLES)
    assert row[1:] == (
        "300.0 (200.0-400.0)",
        "300.0 (194.0-396.0)",
        "0.99 (0.97-1.00)",
        "1.00 (1.00-1.20)",
        "20",
        "1,000",
    )
