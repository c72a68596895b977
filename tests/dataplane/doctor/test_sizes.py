"""sizes: the largest packet that passes is found to the byte, whatever is lost."""

from collections.abc import Iterable

import pytest

from marchproxy.dataplane.doctor.sizes import SMALLEST, Heard, PathSize, Told, find_size


class Link:
    """Takes packets up to a size; of larger ones it says so, or not."""

    def __init__(self, takes: int, told: Told | None = None) -> None:
        self.takes = takes
        self.told = told
        self.asked: list[list[int]] = []

    def ask(self, sizes: Iterable[int]) -> Heard:
        self.asked.append(sorted(sizes))
        passed = frozenset(size for size in self.asked[-1] if size <= self.takes)
        return Heard(passed, self.told if len(passed) < len(self.asked[-1]) else None)


@pytest.mark.parametrize("takes", [*range(SMALLEST, SMALLEST + 40), 1299, 1300, 1301, 1498, 1499])
def test_to_the_byte(takes: int) -> None:
    link = Link(takes)
    found = find_size(link, 1500)
    assert (found, found.is_black_hole) == (PathSize(takes, 1500), True)
    assert len(link.asked) <= 4


@pytest.mark.parametrize("takes", [100, 576, 1500, 8999])
def test_jumbo_frames(takes: int) -> None:
    assert find_size(Link(takes), 9000).largest == takes


def test_all_passes() -> None:
    found = find_size(Link(9000), 1500)
    assert (found, found.is_black_hole) == (PathSize(1500, 1500), False)


def test_who_says_so_is_no_black_hole() -> None:
    found = find_size(Link(1300, Told(1300, "10.2.0.2")), 1500)
    assert (found, found.is_black_hole) == (PathSize(SMALLEST, 1500, Told(1300, "10.2.0.2")), False)


def test_nobody_answers() -> None:
    found = find_size(Link(0), 1500)
    assert (found.largest, found.is_black_hole) == (0, False)


def test_a_router_that_speaks_up_later() -> None:
    class Slow(Link):
        def ask(self, sizes: Iterable[int]) -> Heard:
            self.told = Told(1200, "10.2.0.2") if self.asked else None
            return super().ask(sizes)

    assert find_size(Slow(1200), 1500).told == Told(1200, "10.2.0.2")
