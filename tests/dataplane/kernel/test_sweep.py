"""sweep: idle flows are looked for often, and never for long."""

import time
from collections.abc import Callable

import pytest

from marchproxy.dataplane.kernel.flows import FlowTable, Timeouts
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.kernel.pressure import Census
from marchproxy.dataplane.kernel.sweep import INTERVAL, SHARE, Sweep
from marchproxy.dataplane.records import Event
from tests.dataplane.kernel.fakes import FakeCounts, FakeMap


class Clock(FlowTable):
    """A table whose walk takes `cost` seconds, in a time of its own."""

    def __init__(self) -> None:
        super().__init__(
            {name: FakeMap(name) for name in ("flows", "opening", "tunnels")} | {"beginnings": FakeCounts()},
            MappingNames(FakeMap("mapping_names")),
            Timeouts(),
        )
        self.now, self.cost, self.walks = 1000.0, 0.0, 0

    def expire(self, report: Callable[[Event], None]) -> Census:
        self.now += self.cost
        self.walks += 1
        census = Census(NatPorts())
        census.established = 4
        return census


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    return made


def walks_within(clock: Clock, turns: Sweep, seconds: float) -> int:
    before, end = clock.walks, clock.now + seconds
    while clock.now < end:
        turns.turn(lambda _: None)
        clock.now += 0.25
    return clock.walks - before


def test_every_few_seconds(clock: Clock) -> None:
    assert walks_within(clock, Sweep(clock, _ignore), 60) == 60 / INTERVAL


def test_less_often_where_it_takes_long(clock: Clock) -> None:
    clock.cost = 1.0
    turns = Sweep(clock, _ignore)
    walks = walks_within(clock, turns, 500)
    assert 8 <= walks <= 500 * SHARE / clock.cost


def test_it_tells_what_is_left(clock: Clock) -> None:
    found: list[Census] = []
    turns = Sweep(clock, found.append)
    turns.turn(lambda _: None)
    turns.turn(lambda _: None)
    assert [census.established for census in found] == [4]


def _ignore(_: Census) -> None:
    """Of no interest here."""
