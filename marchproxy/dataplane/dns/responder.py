"""What becomes of one client's question."""

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

import dns.edns
import dns.rcode

from marchproxy.dataplane.dns import answer as answers
from marchproxy.dataplane.dns.answer import Answer
from marchproxy.dataplane.dns.clients import ClientRates
from marchproxy.dataplane.dns.forwarder import Forwarder
from marchproxy.dataplane.dns.query import Query, Unanswered, bare_error, read_query
from marchproxy.dataplane.names.exchange import ExchangeFailed
from marchproxy.model.address import IPAddress

log = logging.getLogger(__name__)

TEACHING = 1.0
"""Seconds that an answer waits for policy to take over its addresses."""
RECENT = 100
"""Names with refused addresses that are remembered for people to see."""
SAID = 1000
"""Lines of the log that are remembered; within `SAY_AGAIN` seconds none is written again."""
SAY_AGAIN = 60.0

type Blocked = Callable[[str], str]
"""Which block covers a host name, in words; empty: none."""
type Reach = Callable[[int, float], Awaitable[bool]]
"""Wait until policy has names at a version in force; False: not within so many seconds."""


class Teacher(Protocol):
    """Whom addresses are told first; `names.resolver.Resolver`."""

    def refusal(self, name: str, address: IPAddress) -> str:
        """What is wrong with an address of `name`; empty: nothing."""

    def learn(self, name: str, addresses: Iterable[IPAddress], ttl: float) -> int:
        """Take addresses in; the version that has them, 0 where no policy depends on it."""


class Responder:
    """Answers questions. Owns no socket."""

    def __init__(self, forwarder: Forwarder, teacher: Teacher, reach: Reach, blocked: Blocked) -> None:
        self._forwarder = forwarder
        self._teacher = teacher
        self._reach = reach
        self._blocked = blocked
        self._rates = ClientRates()
        self._counts: Counter[str] = Counter()
        self._rebinding: OrderedDict[str, str] = OrderedDict()
        self._said: OrderedDict[str, float] = OrderedDict()

    @property
    def counts(self) -> Mapping[str, int]:
        """Questions since the start, by what became of them."""
        return self._counts

    @property
    def rebinding(self) -> Mapping[str, str]:
        """Names whose answers had addresses that they may not have, and which; the last `RECENT`."""
        return self._rebinding

    async def respond(self, wire: bytes, client: IPAddress, *, limit: int | None = None) -> bytes | None:
        """What to send back; None: nothing. `limit`: bytes of an answer over TCP; UDP's are the client's."""
        if not self._rates.admit(client, time.monotonic()):
            self._counts["limited"] += 1
            return None
        try:
            query = read_query(wire)
        except Unanswered as error:
            self._counts["refused"] += 1
            return error.wire
        try:
            return answers.render(query, await self._answer(query, client), limit or query.payload)
        except Exception as error:
            # One question that we cannot handle is no reason to stop answering others.
            log.error("%s asked for %s: %s: %s", client, query.name, type(error).__name__, error)
            log.debug("%s", query.name, exc_info=True)
            self._counts["failed"] += 1
            return bare_error(wire, dns.rcode.SERVFAIL)

    async def _answer(self, query: Query, client: IPAddress) -> Answer:
        if found := self._block(query.name, query.name, client):
            return found
        try:
            fetched = await self._forwarder.fetch(query.question)
        except ExchangeFailed as error:
            self._counts["failed"] += 1
            log.debug("%s asked for %s: %s", client, query.name, error.failure.value)
            return Answer(dns.rcode.SERVFAIL, note=dns.edns.EDECode.NETWORK_ERROR)
        answer = answers.read_answer(fetched.wire, query, age=fetched.age, ttl=fetched.ttl)
        if fetched.ttl is not None:
            self._counts["stale"] += 1
            answer.note = dns.edns.EDECode.STALE_ANSWER
        for alias in answer.aliases:
            if found := self._block(alias, query.name, client):
                return found
        self._refuse_rebinding(query.name, answer, client)
        await self._teach(query.name, answer)
        self._counts["answered"] += 1
        return answer

    def _block(self, name: str, asked: str, client: IPAddress) -> Answer | None:
        why = self._blocked(name)
        if not why:
            return None
        self._counts["blocked"] += 1
        alias = "" if name == asked else f", an alias of {name},"
        self._say(logging.INFO, f"{client} asked for {asked}{alias}: blocked by {why}")
        return Answer(dns.rcode.NXDOMAIN, note=dns.edns.EDECode.BLOCKED)

    def _refuse_rebinding(self, name: str, answer: Answer, client: IPAddress) -> None:
        """Cut addresses that the name may not have."""
        judged = {
            address: self._teacher.refusal(name, address) for address, _ in answers.addresses(answer.records)
        }
        refused = {address: what for address, what in judged.items() if what}
        if not refused:
            return
        answer.records = answers.without(answer.records, refused)
        answer.authentic = False
        answer.note = dns.edns.EDECode.FILTERED
        self._counts["rebinding"] += 1
        told = ", ".join(f"{address} is {what}" for address, what in list(refused.items())[:3])
        self._say(logging.WARNING, f"{client} asked for {name}: refused, {told}")
        self._rebinding[name] = told
        self._rebinding.move_to_end(name)
        if len(self._rebinding) > RECENT:
            self._rebinding.popitem(last=False)

    async def _teach(self, name: str, answer: Answer) -> None:
        """Have policy know the addresses before the client does.

        Where that takes too long the client is told all the same: the answer is true, policy decides on
        addresses, and a stub resolver that hears nothing asks elsewhere.
        """
        told = dict(answers.addresses(answer.records))
        if not told:
            return
        version = self._teacher.learn(name, told, max(told.values()))
        if version and not await self._reach(version, TEACHING):
            self._counts["untaught"] += 1
            self._say(logging.WARNING, f"{name} was answered before policy had taken over its addresses")

    def _say(self, level: int, line: str) -> None:
        """Write a line, but not for each of the questions that a page or a program asks every second."""
        now = time.monotonic()
        if now - self._said.get(line, -SAY_AGAIN) < SAY_AGAIN:
            return
        log.log(level, "%s", line)
        self._said[line] = now
        self._said.move_to_end(line)
        if len(self._said) > SAID:
            self._said.popitem(last=False)
