"""Programs that open connections first: they go on when they are told to, and failures are no figures."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks.bed import Bed
from benchmarks.opened import opened
from rig import Process, RigError

PROGRAM = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGUSR1}})
print("opening", flush=True)
{before}
print("open", flush=True)
signal.sigwait({{signal.SIGUSR1}})
print("counted", flush=True)
{after}
"""


@pytest.fixture
def started() -> list[Process]:
    return []


@pytest.fixture
def bed(tmp_path: Path, started: list[Process]) -> Iterator[Bed]:
    def popen(argv: list[str]) -> Process:
        started.append(Process(argv, log=tmp_path / "log"))
        return started[-1]

    yield cast(Bed, SimpleNamespace(rig=SimpleNamespace(client=SimpleNamespace(popen=popen))))
    assert not any(each.running for each in started)


def program(before: str = "", after: str = "") -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(before=before, after=after)]


def test_it_goes_on_when_it_is_told_to_and_says_what_it_has_counted(bed: Bed, started: list[Process]) -> None:
    with opened(bed, program(), 1) as go_on:
        [asking] = started
        assert asking.output() == "opening\nopen\n"
        assert go_on() == "counted\n"


def test_who_is_not_told_to_go_on_ends_all_the_same(bed: Bed, started: list[Process]) -> None:
    with opened(bed, program(), 1):
        assert started[0].running


def test_who_cannot_open_says_why(bed: Bed) -> None:
    with pytest.raises(RigError, match="ended with 1") as caught, opened(bed, program("sys.exit('full')"), 1):
        pytest.fail("not open")
    assert "full" in caught.value.hint


def test_a_wrong_answer_is_an_error_with_what_was_said(bed: Bed) -> None:
    with opened(bed, program(after="sys.exit('404')"), 1) as go_on:
        with pytest.raises(RigError, match="no right answer") as caught:
            go_on()
        assert "404" in caught.value.hint
