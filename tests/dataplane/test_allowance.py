"""allowance: idle time is used, traffic is left alone, and time is only what the test says."""

from dataclasses import dataclass, field

import pytest

from marchproxy.dataplane import allowance
from marchproxy.dataplane.allowance import EVENTS, LONGEST, WALK, WALKS, Allowance, idle_seconds

MOST = 5000
SLICE = 0.25
COST = 30e-6


@dataclass
class Machine:
    """Of two processors, with what others leave of them."""

    left: float
    """Seconds a second."""
    known: bool = True
    now: float = 100.0
    idled: float = 0.0
    told: list[int] = field(default_factory=list)

    def idle(self) -> float | None:
        return self.idled if self.known else None

    def allowance(self) -> Allowance:
        return Allowance(self.idle, lambda: self.now, processors=2)

    def run(self, own: Allowance, slices: int, waiting: int = MOST) -> None:
        """Take as many events as may be, each time anew."""
        for _ in range(slices):
            count = own.events(min(MOST, waiting))
            own.take(count)
            self.told.append(count)
            own.spend(count * COST, count)
            self.now += SLICE
            self.idled += max(self.left * SLICE - count * COST, 0)

    def share(self, slices: int) -> float:
        """Of a processor, over the last ones."""
        return sum(self.told[-slices:]) * COST / (slices * SLICE)


def test_an_idle_machine_tells_as_much_as_it_can() -> None:
    machine = Machine(left=1.9)
    machine.run(machine.allowance(), 20)
    assert machine.told[-8:] == [MOST] * 8


@pytest.mark.parametrize("left", [0.0, 0.2, 0.4])
def test_a_busy_machine_is_left_to_its_traffic(left: float) -> None:
    machine = Machine(left)
    machine.run(machine.allowance(), 40)
    assert machine.share(20) == pytest.approx(2 * EVENTS, rel=0.1)


def test_of_what_is_left_beyond_a_quarter_most_is_used() -> None:
    machine = Machine(left=0.8)
    machine.run(machine.allowance(), 80)
    assert 0.15 < machine.share(20) < 0.3


def test_traffic_that_comes_has_its_processors_back_within_two_seconds() -> None:
    machine = Machine(left=1.9)
    own = machine.allowance()
    machine.run(own, 20)
    machine.left = 0.0
    machine.run(own, 8)
    machine.run(own, 4)
    assert machine.share(4) < 3 * EVENTS * 2
    machine.left = 1.9
    machine.run(own, 12)
    assert machine.told[-1] == MOST


def test_few_events_are_always_told() -> None:
    machine = Machine(left=0.0)
    machine.run(machine.allowance(), 40, waiting=20)
    assert machine.told == [20] * 40


def test_what_was_not_needed_is_there_for_a_burst_of_a_second() -> None:
    machine = Machine(left=0.0)
    own = machine.allowance()
    machine.run(own, 20, waiting=1)
    machine.run(own, 1)
    assert machine.told[-1] * COST == pytest.approx(2 * EVENTS, rel=0.3)


def test_costs_are_learned() -> None:
    cheap, dear = Machine(left=0.0), Machine(left=0.0)
    for machine, cost in ((cheap, 10e-6), (dear, 100e-6)):
        own = machine.allowance()
        for _ in range(80):
            count = own.events(MOST)
            own.take(count)
            machine.told.append(count)
            own.spend(count * cost, count)
            machine.now += SLICE
        assert sum(machine.told[-20:]) * cost / 5 == pytest.approx(2 * EVENTS, rel=0.1)


def test_what_must_be_told_is_taken_from_what_comes_next() -> None:
    machine = Machine(left=0.0)
    own = machine.allowance()
    own.take(10_000)
    assert own.events(MOST) == 0
    machine.now += 2
    assert own.events(MOST) > 0


def test_where_the_machine_does_not_say_nothing_is_held_back() -> None:
    machine = Machine(left=0.0, known=False)
    own = machine.allowance()
    machine.run(own, 10)
    assert machine.told == [MOST] * 10
    assert own.pause(1.0) == 1 / WALK


def test_a_machine_that_no_longer_says() -> None:
    machine = Machine(left=0.0)
    own = machine.allowance()
    machine.run(own, 10)
    machine.known = False
    machine.run(own, 10)
    assert machine.told[-1] == MOST
    machine.known = True
    machine.run(own, 20)
    assert machine.share(8) == pytest.approx(2 * EVENTS, rel=0.2)


def test_lists_are_used_longer_where_nothing_is_idle() -> None:
    machine = Machine(left=1.9)
    own = machine.allowance()
    machine.run(own, 4, waiting=0)
    assert own.pause(0.5) == 0.5 / WALK
    machine.left = 0.0
    machine.run(own, 4, waiting=0)
    assert own.pause(0.5) == pytest.approx(0.5 / (2 * WALKS))
    assert own.pause(60.0) == LONGEST


def test_this_machine_says(monkeypatch: pytest.MonkeyPatch) -> None:
    first = idle_seconds()
    assert first is not None
    assert first >= 0
    monkeypatch.setattr(allowance, "open", _refuse, raising=False)
    assert idle_seconds() is None


def _refuse(*_: object) -> None:
    raise PermissionError
