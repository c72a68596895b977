"""Host names of the plan, resolved in the background.

The host's own resolver is asked (getaddrinfo: /etc/hosts, resolv.conf, search rules as the operator set
them), which tells no TTLs; names are asked again at a fixed interval instead.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

from marchproxy.dataplane.status import Problem
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.address import IPAddress

log = logging.getLogger(__name__)

INTERVAL = 30.0
"""Seconds between two questions for the same name."""
AT_ONCE = 8
"""Questions under way at the same time; each occupies a thread until the resolver gives up."""

type Lookup = Callable[[str], Iterable[IPAddress]]


@dataclass(slots=True)
class _Name:
    addresses: tuple[IPAddress, ...] = ()
    """The last good ones, sorted."""
    problem: str = ""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the first answer, good or bad, is in."""


class Resolver:
    """Keeps the addresses of a changing set of names. One that stops resolving keeps its last good ones."""

    def __init__(self, *, lookup: Lookup | None = None, interval: float = INTERVAL) -> None:
        self._lookup = lookup or look_up
        self._interval = interval
        self._names: dict[str, _Name] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._tasks = Tasks()
        self._slots = asyncio.Semaphore(AT_ONCE)

    @property
    def addresses(self) -> Mapping[str, Sequence[IPAddress]]:
        """Every name that has resolved, with its addresses."""
        return {name: known.addresses for name, known in self._names.items() if known.addresses}

    def problems(self) -> Sequence[Problem]:
        """Names whose last question failed."""
        return [Problem("names", known.problem) for known in self._names.values() if known.problem]

    async def watch(self, names: frozenset[str], *, wait: float) -> None:
        """Follow exactly these names; wait up to `wait` seconds for the first answers about new ones."""
        for name in self._names.keys() - names:
            self._watchers.pop(name).cancel()
            del self._names[name]
        new = sorted(names - self._names.keys())
        for name in new:
            known = self._names[name] = _Name()
            self._watchers[name] = self._tasks.start(self._follow(name, known), name=f"names {name}")
        if new:
            await _all_set([self._names[name].asked for name in new], wait)

    async def close(self) -> None:
        """Stop asking. Questions under way are abandoned, not waited for."""
        await self._tasks.stop()

    async def _follow(self, name: str, known: _Name) -> None:
        while True:
            async with self._slots:
                await self._ask(name, known)
            await asyncio.sleep(self._interval)

    async def _ask(self, name: str, known: _Name) -> None:
        before = known.addresses
        problem = ""
        try:
            known.addresses = await self._in_thread(name)
        except OSError as error:
            kept = f"; its last {len(before)} addresses stay in use" if before else ""
            problem = f"{name} does not resolve: {error.strerror or error}{kept}"
        known.problem = problem
        known.asked.set()
        if known.addresses != before:
            log.info("%s is %s", name, ", ".join(map(str, known.addresses)))

    async def _in_thread(self, name: str) -> tuple[IPAddress, ...]:
        """Ask in a daemon thread: an executor's would keep the process alive while a resolver is silent."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[IPAddress, ...]] = loop.create_future()

        def ask() -> None:
            try:
                found = tuple(sorted(set(self._lookup(name)), key=lambda item: (item.version, int(item))))
            except OSError as error:
                tell(answer.set_exception, error)
            else:
                tell(answer.set_result, found)

        def tell[T](settle: Callable[[T], None], value: T) -> None:
            try:
                loop.call_soon_threadsafe(lambda: None if answer.done() else settle(value))
            except RuntimeError:
                log.debug("%s answered after the loop had ended", name)

        threading.Thread(target=ask, name=f"resolve {name}", daemon=True).start()
        return await answer


def look_up(name: str) -> Iterable[IPAddress]:
    """The addresses of a name; blocks for as long as the resolver takes. Raises `OSError`.

    Link-local addresses with a zone are left out: a plan has no place for the zone.
    """
    for *_, address in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM):
        text = str(address[0])
        if "%" not in text:
            found = ip_address(text)
            mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
            yield mapped or found


async def _all_set(events: Iterable[asyncio.Event], seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            for event in events:
                await event.wait()
    except TimeoutError:
        log.info("some host names take more than %g s to resolve; they are added when they do", seconds)
