"""An HTTP/1.1 connection of a client: requests one after the other, each an exchange."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, cast

from marchproxy.dataplane.admission.arrivals import BEFORE_POLICY
from marchproxy.dataplane.credentials.clientcerts import NOTHING_SHOWN, Shown
from marchproxy.dataplane.http.answers import refusal
from marchproxy.dataplane.http.bodies import Body, chunk, last_chunk
from marchproxy.dataplane.http.connections import Owner
from marchproxy.dataplane.http.exchange import Exchange, Phase
from marchproxy.dataplane.http.http2.frames import PREFACE
from marchproxy.dataplane.http.messages import Fields, Request, Response
from marchproxy.dataplane.http.requests import body_of, read_request
from marchproxy.dataplane.http.responses import write_response
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.tracing import id_of, next_number
from marchproxy.dataplane.http.upstream import HIGH_WATER, Known, Upstream
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.dataplane.http.way import Way, Ways
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.dataplane.proxy.protocol.http_head import head_length
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Answer

AHEAD = 64 * 1024
"""Bytes that a client may send before its last request was answered."""
LINGER = 2.0
"""Seconds for a client to take its last answer while it still sends."""


class Switched(Protocol):
    """Takes over what has switched protocols."""

    conversation: Conversation
    exchange: Exchange

    def send(self, data: memoryview | bytes) -> None:
        """The client has sent something."""

    def client_ended(self) -> None:
        """The client has ended."""

    def client_full(self) -> None:
        """The client takes no more for now."""

    def client_ready(self) -> None:
        """It does again."""

    def end(self, reason: Reason = Reason.CLOSED) -> None:
        """End both sides."""


type Switch = Callable[["ClientConnection", Exchange, Conversation, Upstream, bytes], Switched]
"""Have an exchange become something else once 101 was sent; the bytes came from the client already."""


type Speak2 = Callable[["ClientConnection", bytes], None]
"""Have a connection speak HTTP/2 from its first byte on; the bytes have come already."""


class ClientConnection(asyncio.Protocol):
    """The connection."""

    def __init__(
        self,
        site: Site,
        visitor: Visitor,
        owner: Owner,
        switch: Switch,
        speak2: Speak2,
        *,
        secure: bool,
        shown: Shown = NOTHING_SHOWN,
    ) -> None:
        self.secure = secure
        self.shown = shown
        self.transport: asyncio.Transport
        self.ways = Ways()
        self.draining = False
        """The answer that is under way is the last one."""
        self.switched: Switched | None = None
        self._site = site
        self._visitor = visitor
        self._owner = owner
        self._stays = False
        """Its client stays when it ends."""
        self._switch = switch
        self._speak2 = speak2
        self._held = bytearray()
        self._seen = 0
        self._body: Body | None = None
        self._version = "1.1"
        self._keeps = True
        self._chunks = False
        self._closing = False
        self._paused = False
        self._full = False
        """The client takes no more for now."""
        self._ended = False
        """The client sends no more."""
        self._since = time.monotonic()
        self._unsent = 0
        self._last: Request | None = None
        """The last one, if its head means the same each time."""
        self._exchange: Exchange | None = None
        self._repeats: Way | None = None
        """The way of a request that is under way without an exchange."""
        self._upstream: Upstream | None = None
        """Where that is."""
        self._number = 0
        """The number of its id."""
        self._pending = b""
        """The head of an answer, which goes with the first of its body."""
        self._conversations: dict[str, Conversation] = {}
        """By mapping."""
        self._lately: Conversation | None = None
        """That of the last request."""

    @property
    def exchange(self) -> Exchange | None:
        """The request under way; who looks at one that was repeated makes an exchange of it."""
        if self._repeats is not None:
            self.unfold()
        return self._exchange

    # ---- for the listener

    @property
    def visitor(self) -> Visitor:
        """See `Stream`."""
        if self._visitor.evaluator is not self._site.ledger.evaluator:
            self._visitor = Visitor(self._site.ledger.evaluator, self._visitor.who)
        return self._visitor

    @property
    def conversations(self) -> tuple[Conversation, ...]:
        """What its requests count for."""
        own = tuple(self._conversations.values())
        return (*own, self.switched.conversation) if self.switched is not None else own

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self.under_way is not None

    @property
    def under_way(self) -> Exchange | None:
        """The request that is, or what the connection has become by one."""
        return self.switched.exchange if self.switched is not None else self.exchange

    def recheck(self) -> None:
        """End what the plan in force no longer allows."""
        self.ways.clear()
        visitor, exchange = self.visitor, self.under_way
        forbidden = exchange is not None and not exchange.still_allowed()
        if forbidden or visitor.blocked or not visitor.listens:
            self.end(Reason.POLICY_CHANGED)
        elif self.secure is not bool(visitor.certificates):
            # Nothing more in the clear where TLS is spoken from now on.
            self.drain()

    def tick(self, now: float) -> None:
        """See to what takes too long; called about once a second."""
        limits = self._site.limits
        if self._closing:
            if now - self._since > LINGER:
                self.transport.abort()
        elif self.exchange is not None or (self._full and self.switched is None):
            if self.exchange is not None:
                self.exchange.overdue(now)
            unsent = self.transport.get_write_buffer_size()
            if unsent != self._unsent:
                # A slow client may take what was written in large steps, and is not stuck.
                self._unsent, self._since = unsent, now
            stuck = unsent or (self._body is not None and not self._paused)
            if stuck and now - self._since > limits.silence:
                self._give_up()
        elif self.switched is None:
            waits = limits.head if self._held else limits.keepalive
            if now - self._since > waits:
                self._give_up()
        else:
            idle = self._site.ledger.evaluator.plan.settings.tunnel_idle
            if idle and self.switched.conversation.idle() > idle:
                self.switched.end(Reason.IDLE)

    def revoke(self, token: str) -> int:
        """See `Connection`."""
        exchange = self.under_way
        if exchange is None or exchange.verified is None or exchange.verified.token != token:
            return 0
        self.end(Reason.AUTH_REVOKED)
        return 1

    def drain(self) -> None:
        """Let what is under way be the last."""
        self.draining = True
        self.ways.clear()
        if not self.busy:
            if not self._closing:
                # Under TLS the client may take its time to end as well.
                self._closing, self._since = True, time.monotonic()
            self.transport.close()

    def end(self, reason: Reason = Reason.RESET) -> None:
        """End at once; `reason` is that of what it has become by a switch of protocols."""
        if self.switched is not None:
            self.switched.end(reason)
        if self.exchange is not None:
            self.exchange.abort()
        self.transport.abort()

    # ---- of asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self._owner.begun(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        way = self.ways.find(data)
        if way is not None and way.plain and self._repeat(way):
            return
        if self.switched is not None:
            self.switched.send(data)
            return
        if self._closing:
            return
        if not self._held or self._body is not None:
            self._since = time.monotonic()
        if self.exchange is None and not self._full:
            again = self._last if way is None else way.request
            if not self._held and again is not None and again.head == data:
                self._begin(again, len(data))
                return
            self._held += data
            self._next()
        elif self._body is not None and not self._held and not self._paused:
            self._feed(data)
        else:
            # Ahead of its turn; or a piece of a body for which there is no room, and then nothing is read.
            self._held += data
            if self._body is None and len(self._held) > AHEAD:
                self.pause()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`: who has asked may end its side, and is still answered (RFC 9112, 9.6)."""
        if self.switched is not None:
            self.switched.client_ended()
            return False
        if self.secure or self._body is not None or not (self.exchange is not None or self._held):
            return False
        self._ended = True
        if self.exchange is None:
            self._soon()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        exchange, self._exchange = self.exchange, None
        if exchange is not None:
            exchange.abort()
        if self.switched is not None:
            self.switched.end()
        for conversation in self._conversations.values():
            self._site.close(conversation, Reason.CLOSED if exchange is None else Reason.RESET)
        self._conversations.clear()
        self._lately = None
        self.ways.clear()
        self._owner.gone(self)
        if not self._stays:
            self._owner.leave(self)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._full = True
        self._since = time.monotonic()
        if self.switched is not None:
            self.switched.client_full()
        elif self.exchange is not None:
            self.exchange.client_full()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._full = False
        self._since = time.monotonic()
        if self.switched is not None:
            self.switched.client_ready()
        elif self.exchange is not None:
            self.exchange.client_ready()
        else:
            self.resume()
            if self._held or self._ended:
                self._soon()

    # ---- of Stream

    def conversation(self, answer: Answer, request: Request) -> Conversation:
        """See `Stream`."""
        name = request.host
        last = self._lately
        if last is not None and last.answer is answer and last.name == name:
            return last
        found = self._conversations.get(answer.mapping)
        if found is not None and found.answer.rule is answer.rule and found.name == name:
            self._lately = found
            return found
        if found is not None:
            self.ways.clear()
            self._site.close(found, Reason.CLOSED)
        query = self._site.query(self._visitor.who, request)
        made = self._site.ledger.begin(query, self._visitor.who.port, answer, name)
        self._conversations[answer.mapping] = self._lately = made
        return made

    def inform(self, response: Response) -> None:
        """See `Stream`. HTTP/1.0 knows no interim answers."""
        if self._version == "1.1":
            self.transport.write(write_response(response, self._version, keeps=True))

    def respond(self, response: Response) -> None:
        """See `Stream`."""
        unbounded = response.length is None and not response.bodiless
        ends_by_closing = unbounded and self._version == "1.0"
        # A request that is not read to its end cannot be followed by another.
        last = ends_by_closing or self.draining or self._body is not None or (self._ended and not self._held)
        self._keeps = self._keeps and not last
        self._chunks = unbounded and not ends_by_closing
        self._pending = write_response(response, self._version, keeps=self._keeps)
        if self.secure and self._visitor.alternative:
            self._pending = self._with_alternative(self._pending)

    def send(self, data: memoryview | bytes) -> None:
        """See `Stream`."""
        piece = chunk(data) if self._chunks else data
        if self._pending:
            piece, self._pending = b"".join((self._pending, piece)), b""
        self.transport.write(piece)

    def flush(self) -> None:
        """See `Stream`."""
        if self._pending:
            pending, self._pending = self._pending, b""
            self.transport.write(pending)

    def finish(self, trailers: Fields) -> None:
        """See `Stream`."""
        if self._pending:
            self.flush()
        if self._chunks:
            self.transport.write(last_chunk(trailers))
        self._exchange = None
        self._since = time.monotonic()
        if self._paused:
            self.resume()
        if self._body is not None or not self._keeps or self.draining or self.transport.is_closing():
            self._body = None
            self._close()
        elif self._held or self._ended:
            self._soon()

    def fail(self) -> None:
        """See `Stream`: a client must not take what it has for the whole."""
        self._exchange = None
        self._pending = b""
        self.transport.abort()

    def pause(self) -> None:
        """See `Stream`."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """See `Stream`."""
        if not self._paused:
            return
        ahead = self._body is None and len(self._held) > AHEAD
        if not ahead and not self.transport.is_closing():
            self._paused = False
            self._since = time.monotonic()
            self.transport.resume_reading()
            if self._held and self._body is not None:
                self._soon()

    def switch(
        self, exchange: Exchange, conversation: Conversation, response: Response, upstream: Upstream
    ) -> None:
        """See `Stream`."""
        self._exchange = None
        self.ways.clear()
        self.transport.write(write_response(response, self._version, keeps=True))
        held = bytes(self._held)
        self._held.clear()
        self.resume()
        self.switched = self._switch(self, exchange, conversation, upstream, held)

    def let_go(self) -> Callable[[], None]:
        """Its client goes on without it: what is returned is called when that is gone."""
        self._stays = True
        return lambda: self._owner.leave(self)

    # ---- of Repeating

    def repeated(self, known: Known, data: bytes) -> float:
        """See `Repeating`."""
        way = self._repeats
        head = known.plain or known.write()
        # A backend may have failed meanwhile.
        if way is None or not head or self._site.care.circuits.known:
            return 0.0
        self._repeats = self._upstream = None
        if self.secure and self._visitor.alternative:
            head = self._with_alternative(head)
        self.transport.write(head + data[known.end :])
        self._since = now = way.conversation.carry_both(len(way.request.head), len(data) - known.end)
        return now

    def unfold(self) -> None:
        """See `Repeating`: have an exchange go on with what was repeated."""
        way, upstream = self._repeats, self._upstream
        self._repeats = self._upstream = None
        if way is None or upstream is None:
            return
        request = way.request
        self._version, self._keeps = request.version, request.keeps
        exchange = self._exchange = Exchange(self._site, self, request)
        exchange.go_on(way, upstream, self._since, request.given_id or id_of(self._number))
        upstream.hand_over(exchange, request)
        self._site.carry(way.conversation, len(request.head))

    # ---- within

    def _repeat(self, way: Way) -> bool:
        """Send what this way is for once more; False: it has to be begun as any other."""
        if self._exchange is not None or self._repeats is not None or self._held or self._full:
            return False
        upstream = way.repeats(self._site)
        if upstream is None:
            return False
        self._repeats, self._upstream = way, upstream
        self._since = time.monotonic()
        self._number = next_number()
        upstream.repeat(self, way.words(self._number))
        return True

    def _with_alternative(self, head: bytes) -> bytes:
        return b"".join((head[:-2], b"alt-svc: ", self._visitor.alternative, b"\r\n\r\n"))

    def _soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        """Read on in what is held."""
        if self.transport.is_closing() or self._closing or self.switched is not None:
            return
        if self.exchange is None:
            # Who does not take its answers gets no more of them: they would be held here.
            if not self._full:
                self._next()
        elif self._body is not None and self._held and not self._paused:
            held = bytes(self._held)
            self._held.clear()
            self._feed(held)

    def _next(self) -> None:
        """Begin with the next request, if its head is complete."""
        held = self._held
        while held[:2] == b"\r\n":
            # RFC 9112 section 2.2: from clients that end a body with one too many.
            del held[:2]
        try:
            length = head_length(held, self._seen)
            if length is None:
                self._seen = len(held)
                if self._ended:
                    self._close()
                return
            request = self._understand(bytes(held[:length]))
        except Unfit as unfit:
            # What HTTP/2 begins with is no head of HTTP/1.1. Under TLS it is spoken if it was agreed on.
            is_first = self._last is None and self._lately is None
            if held.startswith(PREFACE[:18]) and is_first and not self.secure:
                self._speak2(self, bytes(held))
            else:
                self._refuse(unfit)
            return
        self._seen = 0
        # What follows is held while the exchange begins, which may be over at once.
        del held[:length]
        self._begin(request, length)

    def _begin(self, request: Request, length: int) -> None:
        """Begin with a request whose head had so many bytes; of its body, what is held."""
        held = self._held
        self._version, self._keeps = request.version, request.keeps
        body = body_of(request)
        self._body = None if body.done else body
        exchange = self._exchange = Exchange(self._site, self, request)
        exchange.begin(complete=body.done)
        self._site.carry(exchange.conversation, length)
        if held and self._exchange is exchange and self._body is not None and not self._paused:
            rest = bytes(held)
            held.clear()
            self._feed(rest)

    def _understand(self, head: bytes) -> Request:
        """Clients ask for the same again and again."""
        way, last = self.ways.find(head), self._last
        if way is not None:
            return way.request
        if last is not None and last.head == head:
            return last
        known = self._visitor.understood(head)
        if known is not None:
            self._last = known
            return known
        request = read_request(head)
        # Without a host, what is sent names the backend, which may be another one the next time.
        request.head = head if request.authority else b""
        self._last = request if request.head else None
        self._visitor.remember(request)
        return request

    def _feed(self, data: bytes) -> None:
        exchange, body = self.exchange, self._body
        if exchange is None or body is None:
            self._held += data
            return
        try:
            size = body.feed(data, exchange.send)
        except Unfit as unfit:
            answering = exchange.phase is Phase.ANSWERING
            exchange.abort()
            if answering:
                # What we would say would be taken for a part of the answer.
                self.fail()
            else:
                self._refuse(unfit)
            return
        self._site.carry(exchange.conversation, size)
        if self.exchange is not exchange:
            return
        if body.done:
            self._body = None
            exchange.finish(body.trailers)
        if size < len(data):
            self._held += data[size:]

    def _refuse(self, unfit: Unfit) -> None:
        """Answer a request that cannot be read, and end."""
        self._held.clear()
        self._exchange = self._body = None
        visitor = self._visitor
        self._site.ledger.refuse(visitor.who.query(), visitor.who.port, BEFORE_POLICY, unfit.reason)
        response, body = refusal(unfit)
        self.transport.write(write_response(response, "1.1", keeps=False) + body)
        self._close()

    def _give_up(self) -> None:
        """A client that is too slow: told so where it had begun to ask."""
        if self.exchange is None and self._held and not self._full:
            self._refuse(Unfit(Reason.TOO_SLOW))
        else:
            self.end()

    def _close(self) -> None:
        """End after what was written; what is still sent is thrown away for a moment, for closing over it
        would reset the connection before the answer is read.
        """
        if self._closing or self.transport.is_closing():
            return
        self._closing = True
        self.ways.clear()
        self._since = time.monotonic()
        self._held.clear()
        self.resume()
        if self.secure or self._ended or not self.transport.can_write_eof():
            self.transport.close()
        else:
            self.transport.write_eof()
