"""pace: each at its own interval, and a quarter as often where nothing is idle."""

import pytest

from marchproxy.tui.pace import SLOWER, Pace


class Machine:
    """Two processors, of which so many have nothing to do."""

    def __init__(self) -> None:
        self.now, self.idle, self.free = 100.0, 50.0, 2.0
        self.says = True
        self.pace = Pace(lambda: self.idle if self.says else None, lambda: self.now, processors=2)

    def turns(self, seconds: int, *who: str) -> list[int]:
        """How many each of them had in that time, who ask once a second."""
        found = dict.fromkeys(who, 0)
        for _ in range(seconds):
            self.now += 1.0
            self.idle += self.free
            for each in who:
                found[each] += self.pace.turn(each)
        return list(found.values())


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_everybody_has_every_turn_where_something_is_idle(machine: Machine) -> None:
    machine.free = 0.3
    assert machine.turns(12, "flows", "status") == [12, 12]


def test_a_quarter_of_them_on_a_busy_machine(machine: Machine) -> None:
    machine.free = 0.1
    assert machine.turns(12, "flows", "status") == [12 // SLOWER, 12 // SLOWER]


def test_it_is_as_before_once_something_is_idle_again(machine: Machine) -> None:
    machine.free = 0.0
    assert machine.turns(2, "flows") == [0]
    machine.free = 1.0
    assert machine.turns(3, "flows") == [3]


def test_a_machine_that_does_not_say_is_not_busy(machine: Machine) -> None:
    machine.says = False
    assert machine.turns(5, "flows") == [5]
