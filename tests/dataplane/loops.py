"""Tests that run in an event loop: the daemon's own kind, with a deadline, and nothing left over."""

import asyncio
import functools
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from marchproxy.dataplane.proxy import readiness

DEADLINE = 60.0
"""Seconds a test may take; each takes a fraction of one, but for a machine that stands still."""
PATIENCE = DEADLINE / 2
"""Seconds that a test waits for what should come at once, so that it can say what did not."""


def looped[**P](test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine function as a test. What a callback or forgotten task raises fails it too."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        unhandled: list[dict[str, Any]] = []

        async def within_deadline() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
            async with asyncio.timeout(DEADLINE):
                await test(*args, **kwargs)
            gc.collect()

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                loop = runner.get_loop()
                runner.run(within_deadline())
            # A process of ours has one loop, and keeps this to its end.
            readiness._of_loops.pop(loop, None)
        except BaseException as error:
            for context in unhandled:
                error.add_note(f"in the loop: {context}")
            raise
        assert not unhandled

    return run


async def until(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Wait until something is so, or fail saying what was not."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what} did not come true") from None
