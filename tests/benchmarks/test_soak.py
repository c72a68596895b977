"""The soak: a run of some seconds in which all is well, and what it says where something is not."""

import threading
from typing import cast

import pytest

from benchmarks.soak.__main__ import CONFIGURATION, soak
from benchmarks.soak.talk import Talker, same
from benchmarks.soak.watch import Sample, grown
from rig import Appliance, Host, Rig
from rig.servers import start_echo, start_http


class Here:
    """Stands in for a host: what it is asked to call it calls."""

    def call(self, function: object, *arguments: object) -> object:
        return function(*arguments)  # type: ignore[operator]


class Liar(Talker):
    """Gets something else every third time."""

    name = "liars"

    def turn(self) -> None:
        if self.failed + self.turns == 5:
            ended.set()
        same(b"a", b"b" if (self.failed + self.turns) % 3 == 2 else b"a")


ended = threading.Event()


def test_a_wrong_answer_is_a_failure_and_told_of() -> None:
    liar = Liar(cast(Host, Here()), 1)
    liar.talk(ended)
    assert (liar.turns, liar.failed) == (4, 2)
    assert liar.failures[0].startswith("liars, after ")


def samples(memory: list[float]) -> list[Sample]:
    return [Sample(5.0 * at, value, 100, 1000, 500.0) for at, value in enumerate(memory)]


def test_what_grows_from_the_second_quarter_to_the_last_is_said() -> None:
    assert grown(samples([50, 90, 100, 100, 101, 100, 102, 101])) == []
    assert grown(samples([50, 90, 100, 100, 110, 115, 120, 125])) == ["memory grew from 100.0 to 122.5"]
    assert grown(samples([1, 100])) == []


@pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")
def test_a_short_run_finds_nothing_wrong() -> None:
    with Rig() as rig, Appliance(rig, name="soak") as appliance:
        start_echo(rig.server)
        start_http(rig.server)
        appliance.cli("init")
        appliance.cli("apply", "-f", "-", "--yes", stdin=CONFIGURATION)
        appliance.start()
        said: list[str] = []
        outcome = soak(rig, appliance, 6, 1, faults=False, report=said.append)
    assert outcome.wrong == []
    assert outcome.changes
    assert len(outcome.turns) == 6
    assert min(outcome.turns.values()) > 10
    assert said
