"""Clients from accepting to a session: what the explicit proxy and listeners of mappings have in common."""

import asyncio
import logging
import socket
from abc import abstractmethod
from collections.abc import Callable, Sequence

from marchproxy.dataplane.admission.arrivals import BEFORE_POLICY, Arrivals, Client
from marchproxy.dataplane.admission.challenges import awaited, brought
from marchproxy.dataplane.admission.introduction import introduced, is_trusted
from marchproxy.dataplane.admission.securewire import NotAgreed, SecureWire
from marchproxy.dataplane.admission.session import Decide, Opening, Session
from marchproxy.dataplane.admission.tlsname import refusal
from marchproxy.dataplane.admission.tunnels import Tunnel, Tunnels
from marchproxy.dataplane.admission.wire import Wire
from marchproxy.dataplane.proxy import sockets
from marchproxy.dataplane.proxy.protocol.admission import DEADLINE
from marchproxy.dataplane.proxy.protocol.exchange import (
    Bound,
    Layer,
    Opened,
    Refused,
    Request,
)
from marchproxy.dataplane.proxy.protocol.sni import SniLayer
from marchproxy.model.address import Prefix
from marchproxy.model.entities import WithoutSni
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Answer, Query
from marchproxy.policy.plan import Backend

log = logging.getLogger(__name__)

type NameRefusal = Callable[[Request], Reason | None]
"""Why a TLS hello's name may not go on; see `tlsname`."""


class Admitted:
    """An upstream connection that stands: an `Opening`."""

    def __init__(
        self,
        tunnels: Tunnels,
        tunnel: Tunnel,
        client: Wire,
        upstream: socket.socket,
        backend: Backend,
        leave: Callable[[], None],
    ) -> None:
        """`leave` is called when the tunnel has ended."""
        self._tunnels = tunnels
        self._tunnel = tunnel
        self._client = client
        self._upstream = upstream
        self.backend = backend
        self._leave = leave
        self.conversation = tunnel.conversation
        local = upstream.getsockname()
        self.opened = Opened(sockets.address_of(local[0]), local[1])

    def relay(self, ahead: bytes, bound: Bound | None) -> None:
        """See `Opening`."""
        self._tunnels.open(
            self._tunnel,
            self._client,
            self._upstream,
            self.backend,
            ahead=ahead,
            bound=bound,
            on_end=self._leave,
        )

    def abandon(self) -> None:
        """See `Opening`."""
        self._upstream.close()


class Guarded:
    """An `Opening` whose client has to name its host in TLS before anything goes on."""

    def __init__(
        self, reception: "Reception", opening: Admitted, wire: Wire, who: Client, refusal: NameRefusal
    ) -> None:
        self._reception = reception
        self._opening = opening
        self._wire = wire
        self._who = who
        self._refusal = refusal
        self.opened = opening.opened

    def relay(self, ahead: bytes, bound: Bound | None) -> None:
        """See `Opening`."""
        self._reception.guard(self._opening, self._wire, self._who, self._refusal, ahead)

    def abandon(self) -> None:
        """See `Opening`."""
        self._opening.abandon()


class Reception(Arrivals):
    """Admits the connections of listening sockets, each once it has said what it wants."""

    protocols: tuple[str, ...] = ()
    """Under TLS: the names of what is spoken (ALPN, RFC 7301); empty: no matter."""

    def guard(self, opening: Admitted, wire: Wire, who: Client, refuse: NameRefusal, ahead: bytes) -> None:
        """Relay once the client has named its host; `ahead` was read from it already."""
        work = self._guard(opening, wire, who, refuse, ahead)
        self._tasks.start(work, name=f"name of {who.source}:{who.port}")

    async def _guard(
        self, opening: Admitted, wire: Wire, who: Client, refuse: NameRefusal, ahead: bytes
    ) -> None:
        async def decide(hello: Request) -> Opening | Refused:
            reason = refuse(hello)
            conversation = opening.conversation
            name = hello.host if isinstance(hello.host, str) else conversation.name
            if reason is None:
                conversation.name = name
                return opening
            return self._refused(who, conversation.query, conversation.answer, reason, name=name)

        relayed = False
        try:
            relayed = await self._converse(wire, who, SniLayer(), decide, ahead)
        except OSError as error:
            log.debug("%s:%d: %s", who.source, who.port, error)
        finally:
            if not relayed:
                opening.abandon()
                wire.reset()
                self._gate.leave(who.peer)

    def _name_reason(
        self,
        who: Client,
        hello: Request,
        without: WithoutSni,
        fits: Callable[[str], bool],
        by_address: Callable[[], bool],
    ) -> Reason | None:
        """Why a TLS hello's name may not go on: it is blocked, or as `tlsname.refusal` says."""
        name = hello.host if isinstance(hello.host, str) else ""
        blocked = self._judge.tunnels.refuse(who.source, name)
        return blocked.reason if blocked else refusal(hello, without, fits, by_address)

    async def _introduced(self, wire: Wire, who: Client) -> Client | None:
        """Who the client is; None: it is refused, and that written down. Raises `OSError`."""
        if not is_trusted(who.source, self._proxies(who)):
            return who
        found = await introduced(wire, who)
        if isinstance(found, Client):
            return found
        if found is not None:
            log.debug("%s:%d: %s", who.source, who.port, found.detail)
            self._refused(who, who.query(), BEFORE_POLICY, Reason.MALFORMED)
        return None

    def _proxies(self, who: Client) -> Sequence[Prefix]:
        """From where whoever connects to the listener says who its client is."""
        return ()

    def _certificate(self, who: Client) -> str | None:
        """The qualified name of the certificate with which TLS is spoken to a client; None: it is not."""
        return None

    async def _secure(self, client: socket.socket, who: Client, certificate: str) -> Wire | None:
        """The client's connection under TLS; None: it is refused, and that written down, or in other hands.
        Raises `OSError`.
        """
        until = asyncio.get_running_loop().time() + DEADLINE
        if awaited() and await Wire(client).peek(until) and await brought(client):
            return None
        context = self._contexts.server(certificate, self.protocols)
        if context is None:
            self._refused(who, who.query(), BEFORE_POLICY, Reason.NOT_CARRIED)
            return None
        wire = SecureWire(client, context)
        try:
            await wire.handshake(until, self._limits.sending)
        except NotAgreed as failed:
            log.debug("%s:%d: %s %s", who.source, who.port, failed.reason.name, failed.detail)
            if failed.reason is not Reason.CLOSED:
                self._refused(who, who.query(), BEFORE_POLICY, failed.reason)
            if failed.plain_http:
                await wire.tell(self._told_in_the_clear(), self._limits.sending)
            await wire.close()
            return None
        return wire

    def _told_in_the_clear(self) -> bytes:
        """What a client hears that speaks HTTP where TLS is spoken."""
        return b""

    @abstractmethod
    async def _receive(self, wire: Wire, who: Client) -> bool:
        """Talk to one client. True: it is relayed, and whoever does so leaves the gate. Raises `OSError`."""

    async def _talk(self, wire: Wire, who: Client, layer: Layer) -> bool:
        """Let a layer talk; the same."""
        return await self._converse(wire, who, layer, lambda request: self._decide(request, wire, who))

    async def _converse(
        self, wire: Wire, who: Client, layer: Layer, decide: Decide, ahead: bytes = b""
    ) -> bool:
        session = Session(wire, layer, decide, self._limits.sending, ahead)
        close = await session.run()
        if close is None:
            return True
        log.debug("%s:%d: %s %s", who.source, who.port, close.reason.name, close.detail)
        if not session.asked and close.reason is not Reason.CLOSED:
            self._judge.ledger.refuse(who.query(), who.port, BEFORE_POLICY, close.reason)
        await wire.close()
        return False

    @abstractmethod
    async def _decide(self, request: Request, wire: Wire, who: Client) -> Opening | Refused:
        """Open what a client asks for, or refuse it and write that down."""

    def _refused(
        self, who: Client, query: Query, answer: Answer, reason: Reason, *, name: str = "", detail: str = ""
    ) -> Refused:
        """Write a refusal down."""
        self._judge.ledger.refuse(query, who.port, answer, reason, name=name)
        return Refused(reason, detail)

    async def _serve(self, client: socket.socket, who: Client) -> None:
        plain = Wire(client)
        wire: Wire | None = plain
        relayed = False
        try:
            introduced = await self._introduced(plain, who)
            if introduced is None:
                return
            who = introduced
            certificate = self._certificate(who)
            if certificate is not None:
                wire = await self._secure(client, who, certificate)
            relayed = wire is not None and await self._receive(wire, who)
        except OSError as error:
            log.debug("%s:%d: %s", who.source, who.port, error)
        finally:
            self._talking.discard(client)
            if not relayed:
                sockets.reset(client)
                self._gate.leave(who.peer)
