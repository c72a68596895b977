"""Labels that have an end."""

from marchproxy.telemetry.seats import MOST, OTHER, Seats


def test_who_comes_first_stays_and_all_others_are_one() -> None:
    seats = Seats(most=2)
    assert [seats.seat("denied", name) for name in "abcabc"] == ["a", "b", OTHER, "a", "b", OTHER]


def test_each_metric_has_its_own() -> None:
    seats = Seats(most=1)
    assert [seats.seat(metric, name) for metric, name in (("x", "a"), ("y", "b"), ("x", "b"))] == [
        "a",
        "b",
        OTHER,
    ]


def test_there_is_room_for_what_one_looks_at() -> None:
    seats = Seats()
    assert [seats.seat("x", str(number)) for number in range(MOST)] == [str(number) for number in range(MOST)]
