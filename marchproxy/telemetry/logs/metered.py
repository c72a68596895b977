"""What a task of the loop costs: its own steps, without what others do while it waits."""

import time
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any


async def metered[T](task: Coroutine[Any, Any, T], spend: Callable[[float], None]) -> T:
    """Run `task`; `spend` is told the seconds of a processor that each of its steps took."""
    return await _Steps(task, spend)


class _Steps[T]:
    def __init__(self, task: Coroutine[Any, Any, T], spend: Callable[[float], None]) -> None:
        self._task = task
        self._spend = spend

    def __await__(self) -> Generator[Any, Any, T]:
        step: Callable[[], Any] = partial(self._task.send, None)
        while True:
            began = time.thread_time()
            try:
                waits = step()
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                self._spend(time.thread_time() - began)
            try:
                yield waits
            except BaseException as error:  # cancelled: for the task to hear of
                step = partial(self._task.throw, error)
            else:
                step = partial(self._task.send, None)
