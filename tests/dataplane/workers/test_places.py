"""pool: workers that cannot be started, do not answer or do not end, and names that cannot be looked up."""

import asyncio
import errno
import os
import signal
import subprocess
from typing import Any, cast

import pytest

from marchproxy.dataplane.credentials.keeper import CredentialKeeper
from marchproxy.dataplane.credentials.parts import BookParts
from marchproxy.dataplane.names.found import Failure, Found, LookupFailed
from marchproxy.dataplane.workers import messages, pool, worker
from marchproxy.dataplane.workers.logsender import LogSender
from marchproxy.dataplane.workers.pool import WorkerPool, _Place
from tests.certificates import keeper
from tests.dataplane.loops import looped, until


class NoCredentials:
    """Stands in for a keeper."""

    def __init__(self) -> None:
        self.parts = BookParts()
        self.book = self.parts.book()


class Asker:
    """A worker's place, and what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def say(self, message: object) -> None:
        self.told.append(message)


async def broken(name: str) -> Found:
    raise RuntimeError(name)


def made() -> tuple[WorkerPool, _Place]:
    """A pool of one, and its place."""
    pool = WorkerPool(1, broken, cast(CredentialKeeper, NoCredentials()), keeper(), None)
    (place,) = pool._workers
    return pool, place


@looped
async def test_whatever_fails_a_name_that_is_asked_for_is_answered() -> None:
    asker = Asker()
    made()[0].look_up(cast(_Place, asker), messages.Find(3, "a.test"))
    await until(lambda: bool(asker.told))
    (answer,) = asker.told
    assert (answer.number, type(answer.value)) == (3, LookupFailed)
    assert answer.value.failure is Failure.UNREACHABLE


@looped
async def test_a_worker_that_cannot_be_started_is_tried_again_and_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    def refuse(*words: object, **options: object) -> None:
        tried.append(words)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    _, place = made()
    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refuse)
        for _ in range(3):
            place.look_after(needed=True)
        assert len(tried) == 1, "not again at once"
        place._not_before = 0.0
        place.look_after(needed=True)
    assert len(tried) == 2
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert len(caplog.records) == 1
    (problem,) = place.problems()
    assert "worker 1 cannot be started" in problem
    place._not_before = 0.0
    place.look_after(needed=True)
    assert (place.alive, place.problems()) == (True, ())
    await place.drain(0)


@looped
async def test_a_worker_that_says_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SILENT", 20)
    _, place = made()
    place.look_after(needed=True)
    assert place._process
    first = place._process
    os.kill(first.pid, signal.SIGSTOP)

    def replaced() -> bool:
        place.look_after(needed=True)
        return place._process not in (None, first)

    await until(replaced, "another")
    assert first.returncode == -signal.SIGKILL
    await place.drain(0)


class Stubborn:
    """A process that takes a while to die."""

    def __init__(self) -> None:
        self.kills = self.looks = 0

    def poll(self) -> int | None:
        self.looks += 1
        return 0 if self.looks > 5 else None

    def kill(self) -> None:
        self.kills += 1


@looped
async def test_a_worker_that_does_not_end_is_killed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LEAVE", -1.0)
    _, place = made()
    process = Stubborn()
    monkeypatch.setattr(place, "_process", process)
    await place.drain(0)
    assert process.kills == 1


@looped
async def test_what_a_callback_of_a_worker_does_not_catch_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    logged: list[messages.Logged] = []

    class Failing:
        def __init__(self, sock: object, rates: object) -> None:
            loop.call_soon(lambda: 1 // 0)
            self.log = LogSender(logged.append)

        async def run(self) -> None:
            await until(lambda: bool(caplog.records), "a line")

    monkeypatch.setattr(worker, "Worker", Failing)
    await worker.serve(cast(Any, None), 3)
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "division" in record.getMessage()
    assert "Traceback" not in record.getMessage()
    await until(lambda: bool(logged), "the daemon to be told")
    assert [(each.process, each.level) for each in logged[0].said] == [("worker 3", "error")]
