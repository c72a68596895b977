"""The checks of all backends at work: who is due is asked, and what is found is counted and told."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from marchproxy.dataplane.health.probes import CannotCheck, probe
from marchproxy.dataplane.health.state import Health
from marchproxy.dataplane.health.timetable import FIRST_WITHIN, Timetable
from marchproxy.dataplane.records import BackendState
from marchproxy.dataplane.status import Problem
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.endpoint import Endpoint
from marchproxy.policy.checks import BackendKey, Check, Watched

log = logging.getLogger(__name__)

AT_ONCE = 250
"""Checks under way at the same time; each has one descriptor."""

type Probe = Callable[[BackendKey, Check], Awaitable[str]]
GRAIN = 0.01
"""Seconds between two looks at the timetable: of thousands of checks a second many begin together."""

type Clock = Callable[[], float]
type Tell = Callable[[BackendState], None]


class _Backend:
    """One that is looked after."""

    __slots__ = ("health", "impossible", "watched")

    def __init__(self, watched: Watched, health: Health | None) -> None:
        self.watched = watched
        self.health = health
        """None: not checked."""
        self.impossible = ""
        """Why the last check did not take place."""

    def state(self) -> BackendState:
        """As a record."""
        (service, address, port), check, health = self.watched.backend, self.watched.check, self.health
        return BackendState(
            service=service,
            address=address,
            port=port,
            check=check.method if check else "none",
            up=health.up if health else None,
            checked=health.checked if health else False,
            drained=self.watched.drained,
            since=health.since if health else 0.0,
            why=self.impossible or (health.why if health else ""),
        )


class HealthChecks:
    """Keeps the health of a changing set of backends. For the loop's thread."""

    def __init__(self, tell: Tell, *, ask: Probe = probe, clock: Clock = time.monotonic) -> None:
        """`tell` hears of each backend that goes down or comes up."""
        self._tell = tell
        self._ask = ask
        self._clock = clock
        self._backends: dict[BackendKey, _Backend] = {}
        self._timetable: Timetable[BackendKey] = Timetable(random.random)
        self._down: frozenset[BackendKey] = frozenset()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._news = asyncio.Event()
        """Something was put on the timetable."""
        self._tasks = Tasks()
        self._running: asyncio.Task[None] | None = None

    @property
    def down(self) -> frozenset[BackendKey]:
        """The backends that are down: the same object for as long as they are the same."""
        return self._down

    def states(self) -> Sequence[BackendState]:
        """Every backend that is checked or drained."""
        return [backend.state() for backend in self._backends.values()]

    def problems(self) -> Sequence[Problem]:
        """Services that nobody can reach any more, and checks that cannot be made."""
        alive: dict[str, list[bool]] = {}
        for key, backend in self._backends.items():
            if backend.health and not backend.watched.drained:
                alive.setdefault(key.service, []).append(backend.health.up)
        dead = [f"every backend of {service} is down" for service, up in alive.items() if not any(up)]
        impossible = sorted({backend.impossible for backend in self._backends.values()} - {""})
        return [Problem("health", message) for message in (*dead, *impossible)]

    def watch(self, watched: Iterable[Watched]) -> None:
        """Look after exactly these. What is known of one that is checked as before stays known."""
        wanted = {item.backend: item for item in watched}
        for key in self._backends.keys() - wanted.keys():
            del self._backends[key]
            self._timetable.remove(key)
        for key, item in wanted.items():
            held = self._backends.get(key)
            if held is None or held.watched != item:
                self._backends[key] = self._take_up(item, held)
        self._settle()
        if self._running is None and self._backends:
            self._running = self._tasks.start(self._run(), name="health checks")

    async def close(self) -> None:
        """Stop checking."""
        await self._tasks.stop()

    def _take_up(self, item: Watched, held: _Backend | None) -> _Backend:
        check, before = item.check, held.watched.check if held else None
        if check is None:
            self._timetable.remove(item.backend)
            return _Backend(item, None)
        if held and held.health and before and _asks_alike(before, check):
            held.watched = item
            held.health.follow(check.rise, check.fall)
            return held
        self._timetable.add(item.backend, check.interval, self._clock())
        self._news.set()
        return _Backend(item, Health(check.rise, check.fall, time.time()))

    async def _run(self) -> None:
        while True:
            await self._slots.acquire()
            key = await self._next_due()
            backend = self._backends[key]
            name = f"check of {key.service} {key.address} {key.port}"
            task = self._tasks.start(self._check(key, backend), name=name)
            task.add_done_callback(lambda _: self._slots.release())

    async def _next_due(self) -> BackendKey:
        while (key := self._timetable.take(self._clock())) is None:
            self._news.clear()
            due = self._timetable.next_due()
            if due is None:
                await self._news.wait()
            else:
                # An interval is a second or more, so what is put down meanwhile can wait as long.
                await asyncio.sleep(min(max(due - self._clock(), GRAIN), FIRST_WITHIN / 10))
        return key

    async def _check(self, key: BackendKey, backend: _Backend) -> None:
        began, check, changed = self._clock(), backend.watched.check, False
        if check is None or backend.health is None:
            return
        try:
            failure = await self._ask(key, check)
            backend.impossible = ""
            changed = backend.health.observe(failure, time.time())
        except CannotCheck as error:
            backend.impossible = str(error)
        finally:
            if self._backends.get(key) is backend:
                self._timetable.again(key, check.interval, began, self._clock())
                self._news.set()
        if changed and self._backends.get(key) is backend:
            self._settle()
            self._announce(backend.state())

    def _settle(self) -> None:
        down = frozenset(
            key for key, backend in self._backends.items() if backend.health and not backend.health.up
        )
        if down != self._down:
            self._down = down

    def _announce(self, state: BackendState) -> None:
        where = Endpoint(state.address, state.port) if state.port else state.address
        if state.up:
            log.info("%s of %s is up", where, state.service)
        else:
            log.warning("%s of %s is down: %s", where, state.service, state.why)
        self._tell(state)


def _asks_alike(one: Check, other: Check) -> bool:
    """Whether what one found says something about the other."""
    return (one.method, one.path, one.host) == (other.method, other.path, other.host)
