"""One question to all resolvers in turn, until one knows."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dns.rcode

from marchproxy.dataplane.names.exchange import ExchangeFailed, Question, Reply, exchange
from marchproxy.dataplane.names.found import Failure
from marchproxy.dataplane.names.system import Upstreams
from marchproxy.model.endpoint import Endpoint

ASIDE = 30.0
"""Seconds for which a server that did not answer is asked after the others."""
PAUSE = 0.2
"""Seconds between two rounds where all servers refuse at once: one of them may be restarting."""

_FAILURES = {dns.rcode.SERVFAIL: Failure.SERVFAIL, dns.rcode.REFUSED: Failure.REFUSED}
_ANSWERS = frozenset({dns.rcode.NOERROR, dns.rcode.NXDOMAIN})


@dataclass(frozen=True, slots=True)
class Silence:
    """A server that does not answer. Times are the asker's clock's."""

    since: float
    last: float
    """When it was last asked in vain."""
    failure: Failure


class Asker:
    """Asks whoever `upstreams` names at the moment, those first that answered lately."""

    def __init__(
        self, upstreams: Callable[[], Upstreams], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._upstreams = upstreams
        self._clock = clock
        self._silent: dict[Endpoint, Silence] = {}
        self.avoided: frozenset[Endpoint] = frozenset()
        """Servers that are ourselves: asking them would come back as a question."""

    @property
    def servers(self) -> tuple[Endpoint, ...]:
        """Whom to ask, in the operator's order."""
        return tuple(server for server in self._upstreams().servers if server not in self.avoided)

    @property
    def is_down(self) -> bool:
        """Whether none of the servers answered when last asked."""
        return all(server in self._silent for server in self.servers)

    @property
    def silent(self) -> dict[Endpoint, Silence]:
        """Servers that did not answer when last asked."""
        servers = set(self.servers)
        return {server: found for server, found in self._silent.items() if server in servers}

    async def ask(self, question: Question) -> Reply:
        """An answer of NOERROR or NXDOMAIN. Raises `ExchangeFailed` with what the last server did."""
        upstreams, failure = self._upstreams(), Failure.UNREACHABLE
        for attempt in range(upstreams.attempts):
            for server in self._in_order(self.servers):
                try:
                    reply = await exchange(server, question, upstreams.timeout)
                except ExchangeFailed as error:
                    self._blame(server, error.failure)
                    failure = error.failure
                    continue
                self._silent.pop(server, None)
                rcode = reply.message.rcode()
                if rcode in _ANSWERS:
                    return reply
                failure = _FAILURES.get(dns.rcode.Rcode(rcode), Failure.MALFORMED)
            if failure in (Failure.SERVFAIL, Failure.REFUSED):
                break
            if failure is Failure.UNREACHABLE and attempt + 1 < upstreams.attempts:
                await asyncio.sleep(PAUSE)
        raise ExchangeFailed(failure)

    def _in_order(self, servers: Sequence[Endpoint]) -> list[Endpoint]:
        now = self._clock()

        def is_aside(server: Endpoint) -> bool:
            return server in self._silent and now - self._silent[server].last < ASIDE

        return sorted(servers, key=is_aside)

    def _blame(self, server: Endpoint, failure: Failure) -> None:
        now, before = self._clock(), self._silent.get(server)
        self._silent[server] = Silence(before.since if before else now, now, failure)
        # Only those that are asked are worth remembering.
        for gone in self._silent.keys() - set(self._upstreams().servers):
            del self._silent[gone]
