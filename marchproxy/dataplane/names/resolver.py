"""Follows the host names of the plan as their TTLs say, and takes in what clients were answered.

A name that stops resolving keeps its last good addresses, for as long as it takes, and says so.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from marchproxy.dataplane.hostaddresses import is_local
from marchproxy.dataplane.names import memory
from marchproxy.dataplane.names.asker import Asker
from marchproxy.dataplane.names.following import Following
from marchproxy.dataplane.names.found import Failure, Found, LookupFailed
from marchproxy.dataplane.names.lookup import Lookup
from marchproxy.dataplane.names.rebinding import IsLocal, Rebinding
from marchproxy.dataplane.names.report import name_problems, name_state
from marchproxy.dataplane.names.system import SystemUpstreams
from marchproxy.dataplane.names.table import NamesView, NameTable
from marchproxy.dataplane.status import NameState, Problem
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.address import IPAddress
from marchproxy.model.appliance import DEFAULT_SETTINGS, Settings
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.patterns import WILDCARD

log = logging.getLogger(__name__)

SHORTEST, LONGEST = 5.0, 3600.0
"""Seconds between two questions for a name, whatever its TTL."""
JITTER = 10.0
"""Seconds, at most, that a question comes late, so that a thousand names do not come together for ever."""
PATIENCE = 20.0
"""Seconds that finding the addresses of a name may take in all."""
AT_ONCE = 64
"""Names looked up at the same time."""
TICK = 1.0
SAVE_EVERY = 2.0
POSTPONED = 60.0
"""Seconds that an address in use lingers on before the flows are looked at again."""

type Find = Callable[[str], Awaitable[Found]]
type InUse = Callable[[frozenset[IPAddress]], Awaitable[frozenset[IPAddress]]]
"""Which of these addresses take part in flows that run."""


class Resolver:
    """Keeps the addresses of a changing set of names and wildcards."""

    def __init__(
        self,
        *,
        find: Find | None = None,
        in_use: InUse | None = None,
        kept_in: Path | None = None,
        shortest: float = SHORTEST,
        own: IsLocal = is_local,
    ) -> None:
        """`kept_in`: the file that keeps answers over a restart; `shortest`: see `SHORTEST`, in seconds.

        `own` knows the appliance's addresses.
        """
        self.upstreams = SystemUpstreams()
        self.asker = Asker(self.upstreams)
        self._find = find or Lookup(self.asker, self.upstreams).find
        self._in_use = in_use
        self._shortest = shortest
        self._settings = DEFAULT_SETTINGS
        self._own = own
        self._rebinding = Rebinding((), own)
        self._table = NameTable()
        self._following: dict[str, Following] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._tasks = Tasks()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tending: asyncio.Task[None] | None = None
        self._file = kept_in
        self._remembered = memory.read(kept_in, time.time()) if kept_in else {}
        self._saved_at = 0.0
        self._unsaved = False
        self._save_problem = ""
        self._age_problem = ""

    async def find(self, name: str) -> Found:
        """Look any name up, also one that is not followed. Raises `LookupFailed`."""
        return await self._find(name)

    @property
    def view(self) -> NamesView:
        """What names stand for: the same object for as long as that does not change."""
        return self._table.view

    def states(self) -> Sequence[NameState]:
        """Every name with all there is to know about it."""
        now = time.monotonic()
        return [
            name_state(name, self._table[name], self._following.get(name), now)
            for name in sorted(self._table)
        ]

    def problems(self) -> Sequence[Problem]:
        """Resolvers that do not answer, names that do not resolve, and wildcards without room."""
        found = name_problems(self.asker, self._following, self._table)
        if self._age_problem:
            found.append(f"which addresses are in use is not known, so old ones stay: {self._age_problem}")
        if self._save_problem:
            found.append(f"answers are not kept for the next start: {self._save_problem}")
        return [Problem("names", message) for message in found]

    def configure(self, settings: Settings, listeners: Iterable[Endpoint] = ()) -> None:
        """Ask whom the settings name, and refuse the addresses that they do not allow.

        `listeners` are the appliance's own: asked, they would ask us.
        """
        self.asker.avoided = frozenset(listeners)
        if settings == self._settings:
            return
        self._settings = settings
        self.upstreams.configure(settings.resolvers)
        self._rebinding = Rebinding(settings.private_answers, self._own)
        self._forget_refused()
        # What failed or was refused may be right now.
        for name, state in self._following.items():
            if state.failure or state.refused:
                self._watchers[name].cancel()
                self._start(name)

    async def watch(self, names: frozenset[str], *, wait: float) -> None:
        """Follow exactly these; wait up to `wait` seconds for the first answers about new ones."""
        new = self._table.keep(names)
        for name in self._following.keys() - names:
            self._watchers.pop(name).cancel()
            del self._following[name]
        for name in new:
            self._remember(name)
        followed = sorted(name for name in new if not name.startswith(WILDCARD))
        for name in followed:
            self._following[name] = Following()
            self._start(name)
        if names and self._tending is None:
            self._tending = self._tasks.start(self._tend(), name="names")
        unknown = [name for name in followed if not self._table[name].current]
        if unknown and wait:
            await _all_set([self._following[name].asked for name in unknown], wait)

    def refusal(self, name: str, address: IPAddress) -> str:
        """What is wrong with `address` as one of `name`'s; empty: nothing. See `Rebinding`."""
        return self._rebinding.refusal(name, address)

    def learn(self, name: str, addresses: Iterable[IPAddress], ttl: float) -> int:
        """Take in what a client is about to be told. The version of `view` that it may be told with.

        0: no policy depends on it.
        """
        since = self._table.learn(name, addresses, max(ttl, self._shortest), time.monotonic())
        self._unsaved = self._unsaved or since > 0
        return since

    async def close(self) -> None:
        """Stop asking, without waiting for answers, and keep what is known."""
        await self._tasks.stop()
        if self._unsaved:
            await self._save()

    def _forget_refused(self) -> None:
        """What names may no longer have goes at once: it was let in by a setting that has been taken back."""
        for name in self._table:
            state = self._following.get(name)
            if state is None or not state.is_local:
                held = [address for address, _ in self._table[name].items()]
                self._table.forget(name, self._refused(name, held), time.monotonic())

    def _start(self, name: str) -> None:
        self._watchers[name] = self._tasks.start(
            self._follow(name, self._following[name]), name=f"names {name}"
        )

    def _remember(self, name: str) -> None:
        now = time.monotonic()
        rows = [
            (address, now + fresh, now + left)
            for address, fresh, left in self._remembered.pop(name, ())
            if not self.refusal(name, address)
        ]
        if rows:
            self._table.restore(name, rows, now)

    async def _follow(self, name: str, state: Following) -> None:
        while True:
            async with self._slots:
                ttl = await self._ask(name, state)
            pause = min(max(ttl, self._shortest), LONGEST)
            # Late and never early: a resolver would only say again what it remembers.
            await asyncio.sleep(pause + random.uniform(0, min(pause / 10, JITTER)))  # noqa: S311

    async def _ask(self, name: str, state: Following) -> float:
        """Look a name up and take over what is found; the seconds until it is due again."""
        try:
            async with asyncio.timeout(PATIENCE):
                found = await self._find(name)
        except TimeoutError:
            return state.failed(Failure.TIMEOUT)
        except LookupFailed as error:
            return state.failed(error.failure, error.ttl)
        except Exception as error:
            # What a server sent may be stranger than anybody thought of: the next answer may be better.
            log.error("looking for %s: %s: %s", name, type(error).__name__, error)
            return state.failed(Failure.MALFORMED)
        refused = {} if found.is_local else self._refused(name, found.addresses)
        good = [address for address in found.addresses if address not in refused]
        if not good:
            return state.failed(Failure.REBINDING, found.ttl, refused)
        ttl = state.answered(found, refused)
        if self._table.answer(name, good, found.unknown, time.monotonic()):
            log.info("%s is %s", name, ", ".join(map(str, self._table[name].current)))
        self._unsaved = True
        # Last: whoever waits for it reads the table.
        state.asked.set()
        return ttl

    def _refused(self, name: str, addresses: Iterable[IPAddress]) -> dict[IPAddress, str]:
        judged = {address: self.refusal(name, address) for address in addresses}
        return {address: what for address, what in judged.items() if what}

    async def _tend(self) -> None:
        """Let time pass for addresses that are not in the last answer, and keep the file up to date."""
        while True:
            await asyncio.sleep(TICK)
            try:
                for name in self._table.due(time.monotonic()):
                    await self._age(name)
                self._age_problem = ""
            except Exception as error:
                # The tier may not say what is in use: the addresses stay until it does.
                self._age_problem = f"{type(error).__name__}: {error}"
            if self._unsaved and time.monotonic() - self._saved_at >= SAVE_EVERY:
                await self._save()

    async def _age(self, name: str) -> None:
        held, now = self._table[name], time.monotonic()
        ending = held.ending(now)
        if ending and self.asker.is_down:
            held.postpone(ending, now, POSTPONED)
        elif ending and self._in_use is not None:
            used = await self._in_use(frozenset(ending))
            if name not in self._table or self._table[name] is not held:
                return
            held.postpone(used, now, POSTPONED)
        self._unsaved = True
        if self._table.drop(name, now):
            log.info("%s is %s", name, ", ".join(map(str, held.current)) or "without addresses")

    async def _save(self) -> None:
        if self._file is None:
            return
        now, self._saved_at, self._unsaved = time.monotonic(), time.monotonic(), False
        kept = {
            name: [(address, held.fresh_until - now, held.gone_at - now) for address, held in items]
            for name in self._table
            if (items := list(self._table[name].items()))
        }
        try:
            await asyncio.to_thread(memory.write, self._file, kept, time.time())
            self._save_problem = ""
        except OSError as error:
            self._save_problem = f"{self._file}: {error.strerror}"


async def _all_set(events: Iterable[asyncio.Event], seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for event in events:
                await event.wait()
