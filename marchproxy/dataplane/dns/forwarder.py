"""Fetches answers for clients: from the cache, or from the resolvers, where each question goes out once."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import dns.message
import dns.rcode
import dns.rdatatype

from marchproxy.dataplane.dns.cache import Cache, Stored
from marchproxy.dataplane.names.exchange import ExchangeFailed, Question, Reply
from marchproxy.dataplane.names.found import Failure
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.endpoint import Endpoint

PATIENCE = 5.0
"""Seconds that a client waits: most ask again after five."""
STALE_AFTER = 1.0
"""Seconds after which a client gets an answer that is out of date, RFC 8767 section 5."""
STALE_TTL = 30
"""Seconds for which it may remember that."""
AT_ONCE = 512
"""Questions under way."""
LONGEST_NEGATIVE = 300.0
"""Seconds that a name without records is remembered, whatever its SOA says."""

LONGEST = 3600.0
"""Seconds that an answer is remembered."""


class Asks(Protocol):
    """Who is asked; `names.asker.Asker`."""

    @property
    def servers(self) -> tuple[Endpoint, ...]:
        """The resolvers."""

    async def ask(self, question: Question) -> Reply:
        """Their answer. Raises `ExchangeFailed`."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, and what its TTLs mean now."""

    wire: bytes
    age: int = 0
    ttl: int | None = None
    """In place of its own; None: those hold."""


class Forwarder:
    """Asks `asker`, remembers, and stands in when nobody answers."""

    def __init__(self, asker: Asks, clock: Callable[[], float] = time.monotonic) -> None:
        self._asker = asker
        self._servers = asker.servers
        self._clock = clock
        self._cache = Cache()
        self._tasks = Tasks()
        self._asking: dict[Question, asyncio.Task[Stored | Failure]] = {}

    async def fetch(self, question: Question) -> Fetched:
        """The answer to a question. Raises `ExchangeFailed`."""
        self._forget_others()
        known, now = self._cache.get(question, self._clock()), self._clock()
        if known is not None and known.is_fresh(now):
            return Fetched(known.wire, int(now - known.at))
        task = self._asking.get(question) or self._start(question)
        outcome: Stored | Failure = Failure.TIMEOUT
        if task is not None:
            patience = PATIENCE if known is None else STALE_AFTER
            await asyncio.wait({task}, timeout=patience)
            outcome = task.result() if task.done() and not task.cancelled() else Failure.TIMEOUT
        if isinstance(outcome, Stored):
            return Fetched(outcome.wire)
        if known is not None:
            return Fetched(known.wire, ttl=STALE_TTL)
        raise ExchangeFailed(outcome)

    async def close(self) -> None:
        """Stop asking."""
        await self._tasks.stop()

    def _forget_others(self) -> None:
        """Other resolvers may say other things."""
        servers = self._asker.servers
        if servers != self._servers:
            self._servers, self._cache = servers, Cache()

    def _start(self, question: Question) -> "asyncio.Task[Stored | Failure] | None":
        if len(self._asking) >= AT_ONCE:
            return None
        task = self._tasks.start(self._fetch(question), name=f"dns {question.name}")
        self._asking[question] = task
        task.add_done_callback(lambda _: self._asking.pop(question, None))
        return task

    async def _fetch(self, question: Question) -> Stored | Failure:
        try:
            reply = await self._asker.ask(question)
        except ExchangeFailed as error:
            return error.failure
        stored = Stored(reply.wire, self._clock(), min(holds(reply.message), LONGEST))
        if stored.ttl > 0:
            self._cache.put(question, stored)
        return stored


def holds(message: dns.message.Message) -> float:
    """Seconds for which an answer holds: the smallest TTL of what it tells, or RFC 2308 section 5."""
    if message.answer and message.rcode() == dns.rcode.NOERROR:
        return float(min(rrset.ttl for rrset in message.answer))
    ends = [
        min(rrset.ttl, rrset[0].minimum) for rrset in message.authority if rrset.rdtype == dns.rdatatype.SOA
    ]
    return min(float(min(ends, default=0)), LONGEST_NEGATIVE)
