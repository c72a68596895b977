"""Rounds of fetching: only where there is something to fetch, and what went wrong is a problem."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from marchproxy.dataplane import pulling
from marchproxy.dataplane.intent import Intent
from marchproxy.dataplane.pulling import Pulling
from tests.dataplane.loops import looped, until


class Store:
    """With so many sources."""

    def __init__(self, count: int) -> None:
        self.certificate_sources = self
        self._count = count

    def every(self) -> Sequence[int]:
        return range(self._count)


class Reading:
    """An intent that is asked for a store."""

    def __init__(self, count: int) -> None:
        self.store = Store(count)
        self.asked = 0

    async def read(self, question: Callable[[Any], Any]) -> Any:
        self.asked += 1
        return question(self.store)


def made(reading: Reading, program: str) -> Pulling:
    return Pulling(cast(Intent, reading), [sys.executable, "-c", program])


@looped
async def test_a_round_says_what_went_wrong_until_it_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "FIRST", 0.0)
    monkeypatch.setattr(pulling, "EVERY", 0.0)
    reading = Reading(1)
    failing = "import sys; sys.exit('hint: x\\nerror: certificate web: HTTP 503')"
    rounds = made(reading, failing)
    rounds.look()
    await until(lambda: bool(rounds.problems()))
    assert [str(each) for each in rounds.problems()] == ["certificates: certificate web: HTTP 503"]
    rounds._command = [sys.executable, "-c", ""]
    rounds.look()
    await until(lambda: not rounds.problems())
    await rounds.close()


@looped
async def test_who_has_no_sources_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(0)
    rounds = made(reading, "import sys; sys.exit('error: never')")
    rounds.look()
    assert not reading.asked
    monkeypatch.setattr(rounds, "_due", 0.0)
    rounds.look()
    rounds.look()
    await until(lambda: reading.asked == 1)
    await rounds.close()
    assert not rounds.problems()


@looped
async def test_one_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "PATIENCE", 0.3)
    rounds = made(Reading(1), "import time; time.sleep(600)")
    monkeypatch.setattr(rounds, "_due", 0.0)
    rounds.look()
    await until(lambda: bool(rounds.problems()))
    assert "not fetched within" in str(rounds.problems()[0])
    await rounds.close()
