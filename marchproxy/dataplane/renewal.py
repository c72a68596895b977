"""Has what is carried out compiled again when names or the clock demand it; many who wait share one turn."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

REST = 0.25
"""Seconds, at most, between two turns: as long as the last one took, so that it never takes more than half a
processor, however many names clients ask for."""


class Renewal:
    """`refresh` carries out names as they are now; `version` says which of them are in force."""

    def __init__(self, refresh: Callable[[], Awaitable[None]], version: Callable[[], int]) -> None:
        self._refresh = refresh
        self._version = version
        self._wanted = asyncio.Event()
        self._waiting: dict[asyncio.Future[None], int] = {}

    def demand(self) -> None:
        """See to it that a turn begins after this."""
        self._wanted.set()

    async def reach(self, version: int, seconds: float) -> bool:
        """Wait until the names of `version` are in force; False: not within `seconds`."""
        if self._version() >= version:
            return True
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[reached] = version
        self.demand()
        try:
            async with asyncio.timeout(seconds):
                await reached
        except TimeoutError:
            return False
        finally:
            del self._waiting[reached]
        return True

    async def run(self) -> None:
        """Take turns, without end."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            began = time.perf_counter()
            # Failures are kept among the problems, where they stay until they are gone.
            with suppress(Exception):
                await self._refresh()
            in_force = self._version()
            for reached, version in self._waiting.items():
                if version <= in_force and not reached.done():
                    reached.set_result(None)
            await asyncio.sleep(min(time.perf_counter() - began, REST))
