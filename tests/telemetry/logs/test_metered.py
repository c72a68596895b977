"""metered: a task's own steps are counted, and it notices nothing."""

import asyncio
import time

import pytest

from marchproxy.telemetry.logs.metered import metered
from tests.dataplane.loops import looped


@looped
async def test_steps_count_and_waiting_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    used = 0.0
    monkeypatch.setattr(time, "thread_time", lambda: used)

    def work(seconds: float) -> None:
        nonlocal used
        used += seconds

    spent: list[float] = []
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def task() -> str:
        work(1)
        waiting.set()
        await go_on.wait()
        work(2)
        return "done"

    running = asyncio.create_task(metered(task(), spent.append))
    await waiting.wait()
    work(50)
    go_on.set()
    assert await running == "done"
    assert spent == [1, 2]


@looped
async def test_what_it_raises_comes_out() -> None:
    async def task() -> None:
        await asyncio.sleep(0)
        raise KeyError("not this one")

    with pytest.raises(KeyError, match="not this one"):
        await metered(task(), lambda _: None)


@looped
async def test_cancelling_reaches_the_task() -> None:
    heard = asyncio.Event()

    async def task() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            heard.set()
            raise

    running = asyncio.create_task(metered(task(), lambda _: None))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert heard.is_set()
