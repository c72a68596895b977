"""Backends that fail are left out, for longer each time, and never all of them."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.http.circuits import LONGEST, TRIAL, Circuits
from marchproxy.policy.plan import DEFAULT_HANDLING, Backend, Pool

ALL = tuple(Backend(ip_address(f"10.0.0.{n}"), 80, "web") for n in range(1, 5))
ONE, TWO, THREE, _ = ALL
POOL = Pool(ALL, (0, 1, 2, 3))
HANDLING = replace(DEFAULT_HANDLING, eject_after=3)


def fail(circuits: Circuits, backend: Backend, times: int = 3, now: float = 0.0, pool: Pool = POOL) -> None:
    for _ in range(times):
        circuits.failed(backend, pool, HANDLING, "it answers 503", now)


def test_failures_in_a_row_open_a_circuit() -> None:
    circuits = Circuits()
    assert not circuits
    fail(circuits, ONE, 2)
    circuits.succeeded(ONE, 0.0)
    fail(circuits, ONE, 2)
    assert circuits.admits(ONE, 0.0)
    fail(circuits, ONE, 1)
    assert not circuits.admits(ONE, 9.9)
    assert circuits.admits(TWO, 0.0)
    [(place, circuit)] = circuits
    assert (place, circuit.why, circuits.counts.ejected) == ((ONE.address, 80, "web"), "it answers 503", 1)


def test_half_open_one_request_tries_and_decides() -> None:
    circuits = Circuits()
    fail(circuits, ONE)
    assert circuits.admits(ONE, 10.0)
    assert not circuits.admits(ONE, 10.0)
    fail(circuits, ONE, 1, now=11.0)
    assert not circuits.admits(ONE, 30.9)
    assert circuits.admits(ONE, 31.0)
    circuits.succeeded(ONE, 31.0)
    assert circuits.admits(ONE, 31.0)
    assert circuits.admits(ONE, 31.0)
    assert circuits.counts.returned == 1
    assert circuits.counts.ejected == 1


def test_a_trial_of_which_nothing_is_heard_keeps_nobody_out_for_ever() -> None:
    circuits = Circuits()
    fail(circuits, ONE)
    assert circuits.admits(ONE, 10.0)
    assert not circuits.admits(ONE, 10.0 + TRIAL - 1)
    assert circuits.admits(ONE, 10.0 + TRIAL)
    circuits.gave_up(ONE)
    assert circuits.admits(ONE, 10.0 + TRIAL)


def test_each_time_is_twice_as_long_until_it_has_done_well_for_long() -> None:
    circuits, now, waits = Circuits(), 0.0, []
    for _ in range(8):
        fail(circuits, ONE, now=now)
        began = now
        while not circuits.admits(ONE, now):
            now += 1.0
        waits.append(now - began)
        circuits.succeeded(ONE, now)
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]
    now += LONGEST + 1
    circuits.succeeded(ONE, now)
    assert not circuits
    fail(circuits, ONE, now=now)
    assert circuits.admits(ONE, now + 10)


def test_a_share_stays() -> None:
    circuits = Circuits()
    for backend in ALL:
        fail(circuits, backend)
    assert [circuits.admits(each, 0.0) for each in ALL] == [False, False, True, True]
    assert circuits.counts.kept == 2
    alone = Circuits()
    fail(alone, ONE, 30, pool=Pool((ONE,), (0,)))
    assert alone.admits(ONE, 0.0)


@pytest.mark.parametrize(("most", "open_ones"), [(0.5, 1), (0.34, 1), (0.33, 0), (1.0, 3)])
def test_the_share_can_be_chosen(most: float, open_ones: int) -> None:
    circuits, pool = Circuits(), Pool(ALL[:3], (0, 1, 2))
    handling = replace(HANDLING, eject_most=most)
    for backend in ALL[:3]:
        for _ in range(9):
            circuits.failed(backend, pool, handling, "", 0.0)
    assert len(list(circuits)) == open_ones


def test_who_wants_none_left_out_has_none() -> None:
    circuits = Circuits()
    for _ in range(100):
        circuits.failed(ONE, POOL, replace(HANDLING, eject_after=0), "", 0.0)
    assert not circuits


def test_what_was_sent_before_says_nothing_new() -> None:
    circuits = Circuits()
    fail(circuits, ONE)
    fail(circuits, ONE, 50, now=1.0)
    assert circuits.admits(ONE, 10.0)
    assert circuits.counts.ejected == 1


def test_nothing_is_remembered_for_ever() -> None:
    circuits = Circuits()
    fail(circuits, ONE, 1)
    fail(circuits, TWO)
    circuits.forget(LONGEST)
    assert circuits
    circuits.forget(10 + LONGEST + 1)
    assert not circuits
