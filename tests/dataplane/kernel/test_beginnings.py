"""beginnings: what will never have an end is found, and nothing else is."""

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.beginnings import Beginnings
from tests.dataplane.kernel.fakes import FakeCounts


class Kernel:
    """What the programs have counted, on two CPUs, and who looks at it."""

    def __init__(self) -> None:
        self.counts = FakeCounts()
        self.beginnings = Beginnings(self.counts)

    def count(self, what: int, *cells: int) -> None:
        self.counts.set_percpu(layouts.U32.pack(what), list(map(layouts.U64.pack, cells)))


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def test_what_was_told_and_is_nowhere_any_more_has_no_end(kernel: Kernel) -> None:
    kernel.count(layouts.BEGINNING_TOLD, 60, 40)
    kernel.count(layouts.BEGINNING_ESTABLISHED, 10, 5)
    kernel.beginnings.ended(7)
    kernel.beginnings.ended(3)
    kernel.beginnings.settle(kernel.beginnings.told, there=70)
    assert kernel.beginnings.unended == 100 - 15 - 10 - 70


def test_one_that_came_or_left_during_the_walk_is_not_missed(kernel: Kernel) -> None:
    kernel.count(layouts.BEGINNING_TOLD, 10, 0)
    told = kernel.beginnings.told
    # Three come and are seen, two that were seen move on, and one ends.
    kernel.count(layouts.BEGINNING_TOLD, 10, 3)
    kernel.count(layouts.BEGINNING_ESTABLISHED, 0, 2)
    kernel.beginnings.ended(1)
    kernel.beginnings.settle(told, there=13)
    assert kernel.beginnings.unended == 0
    kernel.beginnings.settle(kernel.beginnings.told, there=10)
    assert kernel.beginnings.unended == 0


def test_it_never_goes_back(kernel: Kernel) -> None:
    kernel.count(layouts.BEGINNING_TOLD, 10, 0)
    kernel.beginnings.settle(10, there=6)
    kernel.beginnings.settle(10, there=9)
    assert kernel.beginnings.unended == 4


def test_another_daemon_goes_on(kernel: Kernel) -> None:
    kernel.count(layouts.BEGINNING_TOLD, 10, 0)
    kernel.beginnings.ended(2)
    following = Beginnings(kernel.counts)
    following.ended(1)
    following.settle(following.told, there=4)
    assert following.unended == 3


def test_nothing_ended_writes_nothing(kernel: Kernel) -> None:
    kernel.beginnings.ended(0)
    assert kernel.counts.cells == {}
