"""What waits for one slow reader of a stream."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass

QUEUE = 1_000
"""Items that wait for one reader."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Told to a reader in place of `count` items that it was too slow for."""

    count: int


class Outbox[T]:
    """Items in order, at most `QUEUE` of them waiting. To be used in the loop's thread."""

    def __init__(self) -> None:
        self._waiting: deque[T] = deque()
        self._lost = 0
        self._ready = asyncio.Event()

    def put(self, item: T) -> None:
        """Queue an item, or count it as lost.

        The newest are lost, so what is told has no gaps inside.
        """
        if self._lost or len(self._waiting) >= QUEUE:
            self._lost += 1
        else:
            self._waiting.append(item)
        self._ready.set()

    async def batches(self) -> AsyncGenerator[list[T | Lost]]:
        """What has come since the last batch, never empty, without end."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            batch: list[T | Lost] = [*self._waiting]
            if self._lost:
                batch.append(Lost(self._lost))
            self._waiting.clear()
            self._lost = 0
            yield batch
