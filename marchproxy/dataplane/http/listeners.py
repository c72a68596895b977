"""Listeners that read HTTP: from accepting to a connection that speaks for itself."""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Iterator

from marchproxy.dataplane.admission.arrivals import BEFORE_POLICY, Arrivals, Client
from marchproxy.dataplane.admission.judge import Judge
from marchproxy.dataplane.admission.limits import AdmissionLimits, Gate
from marchproxy.dataplane.admission.tunnels import Tunnels
from marchproxy.dataplane.admission.wire import Wire
from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.http.answers import refusal
from marchproxy.dataplane.http.client import ClientConnection
from marchproxy.dataplane.http.hello import hello_name
from marchproxy.dataplane.http.pool import Pool
from marchproxy.dataplane.http.rates import Rates
from marchproxy.dataplane.http.responses import write_response
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.switching import Switching
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.dataplane.proxy import sockets
from marchproxy.dataplane.proxy.connecting import Connect
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.dataplane.proxy.protocol.admission import DEADLINE
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer, Query
from marchproxy.policy.plan import ClientTls

log = logging.getLogger(__name__)

_HANDSHAKE = 0x16
"""The first byte of TLS."""
PROTOCOLS = ("http/1.1",)


class HttpListeners(Arrivals):
    """Serves all of them."""

    def __init__(
        self,
        judge: Judge,
        tunnels: Tunnels,
        gate: Gate,
        limits: AdmissionLimits,
        connecting: Connect,
        contexts: Contexts,
        rates: Rates,
    ) -> None:
        super().__init__(judge, tunnels, gate, limits, connecting, contexts)
        self.live: set[ClientConnection] = set()
        self._pool = Pool(connecting, contexts.client)
        self._site = Site(judge, self._pool, limits, self._tasks, rates)
        self.care = self._site.care
        self._switching = Switching(self._site, tunnels)
        self._draining = False

    @property
    def conversations(self) -> Iterator[Conversation]:
        """What goes on."""
        return (each for connection in self.live for each in connection.conversations)

    def recheck(self) -> None:
        """There is a new plan: end what it does not allow."""
        for connection in tuple(self.live):
            connection.recheck()
        rules = (rule for item in self._judge.ledger.evaluator.plan.listeners for rule in item.rules)
        self.care.keep(frozenset(rule.mapping for rule in rules if rule.handling.retry_on))

    def tick(self) -> None:
        """See to what takes too long; called about once a second."""
        now = time.monotonic()
        for connection in tuple(self.live):
            connection.tick(now)
        self._pool.expire()
        self.care.tick()

    def cut(self, ids: frozenset[int]) -> set[int]:
        """End the connections of these conversations. Returns those that there were."""
        found: set[int] = set()
        for connection in tuple(self.live):
            own = {each.number for each in connection.conversations} & ids
            if own:
                found |= own
                connection.end(Reason.CUT)
        return found

    def revoke(self, token: str) -> int:
        """End what a credential has opened, and is still under way. Returns how much."""
        count = 0
        for connection in tuple(self.live):
            exchange = connection.under_way
            if exchange is not None and exchange.verified and exchange.verified.token == token:
                count += 1
                connection.end(Reason.AUTH_REVOKED)
        return count

    def gone(self, connection: ClientConnection) -> None:
        """See `Owner`."""
        self.live.discard(connection)

    def leave(self, connection: ClientConnection) -> None:
        """See `Owner`."""
        self._gate.leave(connection.visitor.who.source)

    def drain(self) -> None:
        """Answer what was asked, and nothing more."""
        self._draining = True
        for connection in tuple(self.live):
            connection.drain()

    async def close(self) -> None:
        """End everything."""
        for connection in tuple(self.live):
            connection.end()
        await super().close()
        self._pool.close()

    async def _serve(self, client: socket.socket, who: Client) -> None:
        stays = False
        try:
            stays = await self._begin(client, who)
        except OSError as error:
            log.debug("%s:%d: %s", who.source, who.port, error)
        finally:
            self._talking.discard(client)
            if not stays:
                sockets.reset(client)
                self._gate.leave(who.source)

    async def _begin(self, client: socket.socket, who: Client) -> bool:
        """Whether the connection speaks for itself from here on."""
        visitor = Visitor(self._judge.ledger.evaluator, who)
        if visitor.blocked or not visitor.expected:
            answer = visitor.blocked or Answer(Verdict.DENY, Reason.NO_MAPPING, ())
            self._note_refusal(who, who.query(), answer, answer.reason)
            return False
        names = visitor.certificates
        context: ssl.SSLContext | None = None
        asked: ClientTls | None = None
        if names:
            if not await self._speaks_tls(client, who):
                return False
            if visitor.asks:
                context, asked = self._asking(visitor, names, await hello_name(client))
            else:
                context = self._contexts.choosing(names, PROTOCOLS)
            if context is None:
                self._note_refusal(who, who.query(), BEFORE_POLICY, Reason.NOT_CARRIED)
                return False
        return await self._connect_client(client, visitor, context, asked)

    def _asking(
        self, visitor: Visitor, names: tuple[str, ...], host: str
    ) -> tuple[ssl.SSLContext | None, ClientTls | None]:
        """What TLS is spoken with a client that names this host, and the certificate it is asked for."""
        certificate = self._contexts.named(names, host)
        if certificate is None:
            return None, None
        asked, required = visitor.demand(host)
        if asked is None:
            return self._contexts.server(certificate, PROTOCOLS), None
        return self._contexts.asking(certificate, PROTOCOLS, asked, required=required), asked

    async def _connect_client(
        self,
        client: socket.socket,
        visitor: Visitor,
        context: ssl.SSLContext | None,
        asked: ClientTls | None,
    ) -> bool:
        who = visitor.who
        connection = ClientConnection(
            self._site, visitor, self, self._switching.begin, secure=context is not None, asked=asked
        )
        loop = asyncio.get_running_loop()
        try:
            if context is None:
                await loop.connect_accepted_socket(lambda: connection, client)
            else:
                await loop.connect_accepted_socket(
                    lambda: connection, client, ssl=context, ssl_handshake_timeout=DEADLINE
                )
        except (OSError, TimeoutError) as error:
            log.debug("%s:%d: %s", who.source, who.port, error)
            reason = Reason.TLS_FAILED if isinstance(error, ssl.SSLError) else Reason.TOO_SLOW
            if not isinstance(error, ConnectionError):
                self._note_refusal(who, who.query(), BEFORE_POLICY, reason)
            return False
        self.live.add(connection)
        if connection.transport.is_closing():
            self.live.discard(connection)
        if self._draining:
            connection.drain()
        return True

    async def _speaks_tls(self, client: socket.socket, who: Client) -> bool:
        """Whether the first byte is one of TLS; who speaks HTTP in the clear is told."""
        wire = Wire(client)
        first = await wire.peek(asyncio.get_running_loop().time() + DEADLINE)
        if not first:
            self._note_refusal(who, who.query(), BEFORE_POLICY, Reason.TOO_SLOW)
            return False
        if first[0] == _HANDSHAKE:
            return True
        unfit = Unfit(Reason.MALFORMED, "TLS is spoken here: call it https://")
        self._note_refusal(who, who.query(), BEFORE_POLICY, unfit.reason)
        response, body = refusal(unfit)
        await wire.send(write_response(response, "1.1", keeps=False) + body, self._limits.sending)
        await wire.close()
        return False

    def _note_refusal(self, who: Client, query: Query, answer: Answer, reason: Reason) -> None:
        self._judge.ledger.refuse(query, who.port, answer, reason)
