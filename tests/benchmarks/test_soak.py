"""The soak: a run of some seconds in which all is well, and what it says where something is not."""

import threading
from typing import cast

import pytest

from benchmarks.soak.__main__ import soak
from benchmarks.soak.scene import scene
from benchmarks.soak.talk import Talker, same
from benchmarks.soak.watch import Sample, grown
from rig import Host


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
    assert liar.failures[0].began <= liar.failures[0].ended


def samples(memory: list[float]) -> list[Sample]:
    return [Sample(5.0 * at, value, 100, 1000, 500.0) for at, value in enumerate(memory)]


def test_what_grows_from_the_second_quarter_to_the_last_is_said() -> None:
    assert grown(samples([50, 90, 100, 100, 101, 100, 102, 101])) == []
    assert grown(samples([50, 90, 100, 100, 110, 115, 120, 125])) == ["memory grew from 100.0 to 122.5"]
    assert grown(samples([1, 100])) == []


@pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")
def test_a_short_run_finds_nothing_wrong() -> None:
    said: list[str] = []
    with scene() as place:
        outcome = soak(place, 6, 1, report=said.append)
    assert outcome.wrong == []
    assert outcome.changes
    assert len(outcome.turns) == 8
    assert min(outcome.turns.values()) > 10
    assert said
