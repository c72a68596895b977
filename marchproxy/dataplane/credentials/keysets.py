"""Key sets that are followed: fetched when new, once an hour, and when a JWT names a key that they lack."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from marchproxy.dataplane.credentials.jwks import JwksFailed, fetch
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.publickey import PublicKey

type Fetch = Callable[[str], Awaitable[tuple[PublicKey, ...]]]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between two fetches of one set."""

    refresh: float = 3600.0
    retry: float = 60.0
    """After a failure."""
    least: float = 60.0
    """Whatever JWTs strangers send."""


@dataclass(slots=True)
class _Set:
    task: asyncio.Task[None] | None = None
    keys: tuple[PublicKey, ...] = ()
    failure: str = ""
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)


class KeySets:
    """Follows the sets at some addresses. The last good one is kept, however long its issuer is away."""

    def __init__(self, changed: Callable[[], None], *, get: Fetch = fetch, pace: Pace | None = None) -> None:
        """`changed` is called whenever a set has other keys than before."""
        self._changed = changed
        self._get = get
        self._pace = pace or Pace()
        self._sets: dict[str, _Set] = {}
        self._tasks = Tasks()

    def keys(self, url: str) -> tuple[PublicKey, ...]:
        """The keys at an address, as far as they are known."""
        return self._sets[url].keys if url in self._sets else ()

    def problems(self) -> Sequence[str]:
        """Which sets could not be fetched the last time, and why."""
        return [item.failure for item in self._sets.values() if item.failure]

    async def watch(self, urls: Collection[str], *, wait: float) -> None:
        """Follow these addresses and no others; wait up to `wait` seconds for those that are new."""
        for url in self._sets.keys() - set(urls):
            task = self._sets.pop(url).task
            if task is not None:
                task.cancel()
        new = [url for url in urls if url not in self._sets]
        for url in new:
            own = self._sets[url] = _Set()
            own.task = self._tasks.start(self._follow(url, own), name=f"keys at {url}")
        tried = [self._sets[url].tried.wait() for url in new]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*tried), wait)

    def want(self, url: str) -> None:
        """Fetch a set soon: a JWT names a key that is not in it."""
        if url in self._sets:
            self._sets[url].wanted.set()

    async def close(self) -> None:
        """Follow nothing any more."""
        await self._tasks.stop()

    async def _follow(self, url: str, own: _Set) -> None:
        while True:
            own.wanted.clear()
            try:
                keys = await self._get(url)
            except JwksFailed as error:
                own.failure, pause = str(error), self._pace.retry
            else:
                own.failure, pause = "", self._pace.refresh
                if keys != own.keys:
                    own.keys = keys
                    self._changed()
            own.tried.set()
            await asyncio.sleep(min(self._pace.least, pause))
            with suppress(TimeoutError):
                await asyncio.wait_for(own.wanted.wait(), max(pause - self._pace.least, 0))
