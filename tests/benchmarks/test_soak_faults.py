"""Faults of the soak: what they excuse and what not, and a run of seconds with some of them."""

import argparse
from typing import Any, cast

import pytest

from benchmarks.soak.__main__ import _chosen, soak
from benchmarks.soak.faults import EVERYTHING, FAULTS, Faults, Happened
from benchmarks.soak.scene import Scene, scene
from benchmarks.soak.talk import Failure, Talker
from rig import Host


class Client(Talker):
    """Its failures are those that a test gives it."""

    name = "requests"

    def __init__(self, *failures: Failure, succeeded: float = 100.0) -> None:
        super().__init__(cast(Host, None), 0)
        self.failures += failures
        self.succeeded = succeeded

    def turn(self) -> None:
        raise AssertionError


def culprit(*happened: Happened) -> Faults:
    made = Faults(cast(Scene, None), tuple(FAULTS), 1, print, 0.0)
    made.happened += happened
    return made


@pytest.mark.parametrize(
    ("began", "ended", "excused"),
    [(9.0, 9.5, False), (9.0, 10.5, True), (15.9, 18.0, True), (17.1, 17.2, False)],
    ids=["before", "into it", "right behind it", "long behind it"],
)
def test_a_fault_excuses_what_it_overlaps(began: float, ended: float, excused: bool) -> None:
    found = culprit(Happened("upgrade", 10.0, 16.0)).unexcused(Client(Failure(began, ended, "it broke")))
    assert (found == []) is excused
    if not excused:
        assert "it broke" in found[0]


def test_a_fault_excuses_nobody_who_must_not_notice() -> None:
    client = Client(Failure(11.0, 12.0, "it broke"))
    assert culprit(Happened("loss", 10.0, 16.0)).unexcused(client) == [
        "requests: it broke (from 1.0 to 2.0 s after the begin of loss)"
    ]


def test_a_dead_backend_is_an_excuse_until_it_should_have_been_noticed() -> None:
    fault = Happened("backend", 10.0)
    assert fault.excuses("connections to a pool", Failure(15.0, 15.1, ""))
    assert not fault.excuses("connections to a pool", Failure(16.5, 17.0, ""))


def test_who_is_never_well_again_is_told_of() -> None:
    (said,) = culprit(Happened("upgrade", 10.0, 16.0)).unexcused(Client(succeeded=12.0))
    assert said == "requests: nothing went through after the last fault (upgrade)"


def test_faults_harm_clients_that_there_are() -> None:
    assert all(EVERYTHING.issuperset(fault.harms) for fault in FAULTS.values())


def test_faults_are_named() -> None:
    assert set(_chosen("all")) == set(FAULTS) - {"clock"}
    assert _chosen("loss,mtu") == ("loss", "mtu")
    with pytest.raises(argparse.ArgumentTypeError, match="no such fault: earthquake; there are loss, "):
        _chosen("loss,earthquake")


@pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")
def test_a_short_run_with_faults_finds_nothing_wrong() -> None:
    """Eight seconds: what takes a while is that faults have an end, and calm a beginning."""
    chosen = ("loss", "neighbour", "duplication")
    lines: list[Any] = []
    with scene(wires=True) as place:
        outcome = soak(place, 8, 3, faults=chosen, report=lines.append)
    assert outcome.wrong == []
    assert sum(outcome.faults.values()) > 0
