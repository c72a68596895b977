"""Background tasks of the daemon."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Tasks:
    """Starts tasks, names them, and keeps them referenced until they are done.

    The event loop itself holds tasks weakly: one that nobody keeps may be collected half way. A task that
    fails is logged in one line where it happened, because nobody awaits it.
    """

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[Any], tuple[str | Callable[[], str], int]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(
        self, work: Coroutine[Any, Any, Any], *, name: str | Callable[[], str], flow: int = 0
    ) -> asyncio.Task[Any]:
        """Run `work` in the background; `name` says whose work it is, such as `relay 10.0.0.7:51000`, and
        `flow` for which flow (0: none).

        A function is asked when it matters: an address as text takes as long as a task.
        """
        task = asyncio.get_running_loop().create_task(work, name=None if callable(name) else name)
        self._running[task] = name, flow
        task.add_done_callback(self._done)
        return task

    async def stop(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        name, flow = self._running.pop(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            named = name() if callable(name) else name
            about = {"flow": flow}
            log.error("%s failed: %s: %s", named, type(error).__name__, error, extra=about)
            log.debug("%s", named, exc_info=error, extra=about)
