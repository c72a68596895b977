"""Listeners that read HTTP: from accepting to a connection that speaks for itself."""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Mapping
from functools import partial

from marchproxy.dataplane.admission.arrivals import BEFORE_POLICY, Arrivals, Client
from marchproxy.dataplane.admission.challenges import awaited, brought, excluded
from marchproxy.dataplane.admission.hello import hello_name
from marchproxy.dataplane.admission.judge import Judge
from marchproxy.dataplane.admission.limits import AdmissionLimits, Gate
from marchproxy.dataplane.admission.tunnels import Tunnels
from marchproxy.dataplane.admission.wire import Wire
from marchproxy.dataplane.credentials.clientcerts import NOTHING_SHOWN, Shown, lapsed, read_peer
from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.http.answers import refusal
from marchproxy.dataplane.http.client import ClientConnection
from marchproxy.dataplane.http.connections import Connection, Having
from marchproxy.dataplane.http.counts import by_name
from marchproxy.dataplane.http.http2.client import Http2Connection
from marchproxy.dataplane.http.http2.pool import PROTOCOL, Http2Pool
from marchproxy.dataplane.http.pool import Pool
from marchproxy.dataplane.http.rates import Rates
from marchproxy.dataplane.http.responses import write_response
from marchproxy.dataplane.http.securing import Securing
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.switching import Switching
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.dataplane.proxy import sockets
from marchproxy.dataplane.proxy.connecting import Connect
from marchproxy.dataplane.proxy.protocol.admission import DEADLINE
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.address import IPAddress
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer, Query
from marchproxy.policy.plan import ClientTls

log = logging.getLogger(__name__)

_HANDSHAKE = 0x16
"""The first byte of TLS."""
_REMEMBERED = 1024
"""Addresses of clients, each at a listener."""
PROTOCOLS = (PROTOCOL, "http/1.1")


class HttpListeners(Arrivals, Having[Connection]):
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
        self.live: set[Connection] = set()
        self._shaking: set[Securing] = set()
        self._pool = Pool(connecting, lambda to: contexts.client(to.tls_ca, (), to.tls_cert))
        self._http2 = Http2Pool(connecting, lambda to: contexts.client(to.tls_ca, (PROTOCOL,), to.tls_cert))
        self._site = Site(judge, self._pool, self._http2, limits, self._tasks, rates)
        self.care = self._site.care
        self._switching = Switching(self._site, tunnels)
        self._draining = False
        self._visitors: dict[tuple[IPAddress, IPAddress, int], Visitor] = {}
        """One of each address at each listener, of those that came lately."""

    @property
    def site(self) -> Site:
        """What HTTP/3 has in common with it."""
        return self._site

    def request_counts(self) -> Mapping[str, int]:
        """What was done about requests since the start: see `counts`."""
        return by_name(self.care.circuits.counts, self._site.mirrors.counts)

    def recheck(self) -> None:
        """There is a new plan: end what it does not allow."""
        self._visitors.clear()
        for connection in tuple(self.live):
            connection.recheck()
        rules = (rule for item in self._judge.ledger.evaluator.plan.listeners for rule in item.rules)
        self.care.keep(frozenset(rule.mapping for rule in rules if rule.handling.retry_on))

    def tick(self) -> None:
        """See to what takes too long; called about once a second."""
        now = time.monotonic()
        for connection in tuple(self.live):
            connection.tick(now)
        for securing in tuple(self._shaking):
            securing.tick(now)
        self._pool.expire()
        self.care.tick()
        self._http2.tick(now, self._limits.silence, self._limits.head)

    def gone(self, connection: Connection) -> None:
        """See `Owner`."""
        self.live.discard(connection)

    def leave(self, connection: Connection) -> None:
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
        for securing in tuple(self._shaking):
            securing.abort()
        await super().close()
        self._pool.close()
        await self._http2.close()

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
        visitor = self._visitor(who)
        if visitor.blocked or not visitor.expected:
            answer = visitor.blocked or Answer(Verdict.DENY, Reason.NO_MAPPING, ())
            self._note_refusal(who, who.query(), answer, answer.reason)
            return False
        names = visitor.certificates
        context: ssl.SSLContext | None = None
        asked: ClientTls | None = None
        if names:
            first = await self._first_of_tls(client, who)
            if not first or (not excluded(first) and awaited() and await brought(client)):
                return False
            if visitor.asks:
                context, asked = self._asking(visitor, names, await hello_name(client))
            else:
                context = self._contexts.choosing(names, PROTOCOLS)
            if context is None:
                self._note_refusal(who, who.query(), BEFORE_POLICY, Reason.NOT_CARRIED)
                return False
        return await self._connect_client(client, visitor, context, asked)

    def _visitor(self, who: Client) -> Visitor:
        """Clients come again and again."""
        evaluator, place = self._judge.ledger.evaluator, (who.source, who.local, who.local_port)
        found = self._visitors.get(place)
        if found is not None and found.evaluator is evaluator:
            return found.again(who)
        if len(self._visitors) >= _REMEMBERED:
            self._visitors.clear()
        made = self._visitors[place] = Visitor(evaluator, who)
        return made.again(who)

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
        def speaks() -> asyncio.Protocol:
            if context is None:
                return self._http1(visitor, secure=False)
            until = time.monotonic() + DEADLINE
            choose, failed = partial(self._chosen, visitor, asked), partial(self._unagreed, visitor)
            return Securing(context, until, self._shaking, choose, failed)

        try:
            await asyncio.get_running_loop().connect_accepted_socket(speaks, client)
        except OSError as error:
            log.debug("%s:%d: %s", visitor.who.source, visitor.who.port, error)
            return False
        return True

    def _unagreed(self, visitor: Visitor, why: Reason | None, detail: str) -> None:
        """A client is gone with which TLS was not agreed on."""
        who = visitor.who
        log.debug("%s:%d: %s", who.source, who.port, detail or why)
        if why is not None:
            self._note_refusal(who, who.query(), BEFORE_POLICY, why)
        self._gate.leave(who.source)

    def begun(self, connection: Connection) -> None:
        """See `Owner`."""
        self.live.add(connection)
        if self._draining:
            connection.drain()

    def _http1(self, visitor: Visitor, *, secure: bool, shown: Shown = NOTHING_SHOWN) -> ClientConnection:
        return ClientConnection(
            self._site,
            visitor,
            self,
            self._switching.begin,
            self._speak_http2,
            secure=secure,
            shown=shown,
        )

    def _chosen(self, visitor: Visitor, asked: ClientTls | None, tls: ssl.SSLObject) -> asyncio.Protocol:
        """What speaks to a client that has chosen by ALPN (RFC 7301)."""
        peer = None
        if asked and not (tls.session_reused and lapsed(asked.crl)):
            peer = read_peer(tls.getpeercert(binary_form=True))
        shown = Shown(asked, peer, tls.version() or "")
        if tls.selected_alpn_protocol() == PROTOCOL:
            return Http2Connection(self._site, visitor, self, secure=True, shown=shown)
        return self._http1(visitor, secure=True, shown=shown)

    def _speak_http2(self, connection: ClientConnection, data: bytes) -> None:
        """A client that knows without asking (RFC 9113 section 3.3)."""
        other = Http2Connection(self._site, connection.visitor, self, secure=False)
        self.live.discard(connection)
        connection.transport.set_protocol(other)
        other.connection_made(connection.transport)
        other.data_received(data)

    async def _first_of_tls(self, client: socket.socket, who: Client) -> bytes:
        """What has come, if that is TLS, and nothing of it is taken; who speaks HTTP in the clear is told."""
        wire = Wire(client)
        first = await wire.peek(asyncio.get_running_loop().time() + DEADLINE)
        if not first:
            self._note_refusal(who, who.query(), BEFORE_POLICY, Reason.TOO_SLOW)
            return b""
        if first[0] == _HANDSHAKE:
            return first
        unfit = Unfit(Reason.MALFORMED, "TLS is spoken here: call it https://")
        self._note_refusal(who, who.query(), BEFORE_POLICY, unfit.reason)
        response, body = refusal(unfit)
        await wire.send(write_response(response, "1.1", keeps=False) + body, self._limits.sending)
        await wire.close()
        return b""

    def _note_refusal(self, who: Client, query: Query, answer: Answer, reason: Reason) -> None:
        self._judge.ledger.refuse(query, who.port, answer, reason)
