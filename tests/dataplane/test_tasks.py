"""Background tasks: kept, named, and heard when they fail."""

import asyncio
import gc
import logging

import pytest

from marchproxy.dataplane.logs import flow_of
from marchproxy.dataplane.tasks import Tasks
from tests.dataplane.loops import looped, until


@looped
async def test_a_task_that_nobody_keeps_is_kept() -> None:
    tasks, done = Tasks(), asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.set()

    name = tasks.start(work(), name="work 1").get_name()
    gc.collect()
    await done.wait()
    assert name == "work 1"
    await until(lambda: len(tasks) == 0)


def test_a_failure_is_one_line_that_names_the_task(caplog: pytest.LogCaptureFixture) -> None:
    @looped
    async def fail() -> None:
        async def work() -> None:
            raise ZeroDivisionError("by nought")

        tasks = Tasks()
        tasks.start(work(), name="relay 10.0.0.7:51000", flow=77)
        await until(lambda: len(tasks) == 0)

    with caplog.at_level(logging.ERROR, logger="marchproxy"):
        fail()
    (record,) = caplog.records
    assert record.getMessage() == "relay 10.0.0.7:51000 failed: ZeroDivisionError: by nought"
    assert record.exc_info is None
    assert flow_of(record) == 77


@looped
async def test_stopping_ends_what_runs_and_waits_for_it() -> None:
    tasks, ended = Tasks(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    for number in range(3):
        tasks.start(work(), name=str(number))
    await asyncio.sleep(0)
    await tasks.stop()
    assert ended == [True] * 3
    assert len(tasks) == 0
