"""One request of HTTP/3: the client's side of an exchange, on a stream of its own."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from aioquic.h3.connection import ErrorCode
from aioquic.h3.events import H3Event, HeadersReceived

from marchproxy.dataplane.http.answers import refusal
from marchproxy.dataplane.http.conversations import Conversations
from marchproxy.dataplane.http.early import hastened, may_hasten
from marchproxy.dataplane.http.exchange import Exchange, Phase
from marchproxy.dataplane.http.messages import Fields, Request, Response
from marchproxy.dataplane.http.pseudofields import (
    RawFields,
    raw_fields,
    read_request,
    read_trailers,
    write_response,
)
from marchproxy.dataplane.http.upstream import Upstream
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.dataplane.http.way import Ways
from marchproxy.dataplane.http.websockets import OnStream, accepted, accepts, misunderstood
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Answer

if TYPE_CHECKING:
    from marchproxy.dataplane.http.http3.client import Http3Connection


class RequestStream:
    """The stream."""

    secure = True
    ways: Ways | None = None

    def __init__(self, client: "Http3Connection", number: int) -> None:
        self.id = number
        self.shown = client.shown
        self.exchange: Exchange | None = None
        """While the request is under way."""
        self.carrying: OnStream | None = None
        """What it has become: a WebSocket."""
        self.queued = 0
        """Bytes of the body that have come, taken or not."""
        self.gathered = self.pieces = 0
        """Bytes of a head that is not complete, and how many pieces they came in."""
        self.held: list[H3Event] = []
        """What has come early, and waits."""
        self._client = client
        self._pieces: list[bytes] = []
        self._left: int | None = None
        """Bytes of the body that are announced and have not come."""
        self._ended = False
        """All of the request has come."""
        self._passed_on = False
        """And has gone on."""
        self._trailers: Fields = ()
        self._answered = False
        """There is nothing more to say."""
        self._paused = False
        self._full = False
        self._feeding = False
        self._counts: tuple[Conversations, Conversation] | None = None
        self._unsent = 0
        self._since = time.monotonic()

    @property
    def visitor(self) -> Visitor:
        """See `Stream`."""
        return self._client.visitor

    @property
    def counting(self) -> Conversations | None:
        """Where it counts."""
        return self._counts[0] if self._counts else None

    def opened_by(self, token: str) -> bool:
        """Whether this credential has."""
        verified = self.exchange.verified if self.exchange is not None else None
        return verified is not None and verified.token == token

    # ---- from the client

    def hastens(self, found: Sequence[H3Event]) -> bool:
        """Whether this is a whole request that goes on before the handshake is complete."""
        match found:
            case [HeadersReceived(headers=raw, stream_ended=True)]:
                with suppress(Unfit):
                    return may_hasten(self.visitor, read_request(raw, "3", ends=True))
        return False

    def head(self, raw: RawFields, *, ends: bool) -> None:
        """The head has come, or what stands behind the body."""
        self._since = time.monotonic()
        try:
            if self.exchange is None and not self._answered:
                self._begin(read_request(raw, "3", ends=ends), ends=ends)
            elif self.exchange is not None:
                self._trailers = read_trailers(raw)
                self.body(b"", ends=ends)
        except Unfit as unfit:
            self._refuse(unfit)

    def body(self, data: bytes, *, ends: bool) -> None:
        """A piece of the body has come."""
        exchange = self.exchange
        if exchange is None:
            return
        self._since = time.monotonic()
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (ends and self._left):
                # A backend would take the rest for another request, or wait for it for ever.
                self._refuse(Unfit(Reason.MALFORMED, "the body is not as long as Content-Length says"))
                return
        if data:
            if not exchange.request.websocket:
                self._client.site.carry(exchange.conversation, len(data))
            self._pieces.append(data)
            self.queued += len(data)
        self._ended = self._ended or ends

    def taken_back(self) -> None:
        """The client wants no answer any more, or does not finish what it asks."""
        if self._answered and self.exchange is None:
            self.progressed()
        else:
            self.give_up(ErrorCode.H3_REQUEST_CANCELLED, wasted=self.carrying is None)

    def lost(self) -> None:
        """The connection is gone."""
        exchange, self.exchange = self.exchange, None
        self._answered = True
        if exchange is not None:
            exchange.abort()
        self.end_carrying()
        self._release()

    def give_up(self, code: int, *, wasted: bool = False, reason: Reason = Reason.RESET) -> None:
        """End it; `code` says why (RFC 9114 section 8.1), and `reason` of what it has become by a switch."""
        exchange, self.exchange = self.exchange, None
        self._answered = True
        if exchange is not None:
            exchange.abort()
        engine = self._client.engine
        if not engine.closing:
            engine.reset_stream(self.id, code)
            engine.refuse_more(self.id, code)
            self._client.quic.flush_soon()
        self.end_carrying(reason)
        self._finished(wasted=wasted)

    def progressed(self) -> None:
        """The client may have taken some of the answer."""
        unsent = self._client.engine.unsent(self.id)
        if unsent < self._unsent:
            self._unsent, self._since = unsent, time.monotonic()
        if self.exchange is None and self._answered:
            if not unsent:
                self._finished(wasted=False)
        elif self._full and self.exchange is not None and unsent <= self._client.water // 2:
            self._full = False
            if self.carrying is not None:
                self.carrying.upstream.resume()
            else:
                self.exchange.client_ready()

    def tick(self, now: float) -> None:
        """See to what takes too long."""
        limits, exchange = self._client.site.limits, self.exchange
        silent = now - self._since
        if exchange is None and not self._answered:
            if silent > limits.head:
                self._refuse(Unfit(Reason.TOO_SLOW))
            return
        if self.carrying is not None:
            idle = self._client.site.ledger.evaluator.plan.settings.tunnel_idle
            if idle and self.carrying.conversation.idle() > idle:
                self.carrying.end(Reason.IDLE)
        elif exchange is not None:
            exchange.overdue(now)
        if exchange is not None and self.exchange is None:
            return
        self.progressed()
        waits = self._client.engine.unsent(self.id) or (exchange is not None and self._wants_more())
        patience = exchange.patience if exchange is not None else limits.silence
        if waits and silent > patience:
            self.give_up(ErrorCode.H3_REQUEST_CANCELLED)

    # ---- of Stream

    def conversation(self, answer: Answer, request: Request) -> Conversation:
        """See `Stream`."""
        counting = self._client.counting
        taken = counting.take(self.visitor, answer, request)
        self._counts = counting, taken
        return taken

    def inform(self, response: Response) -> None:
        """See `Stream`."""
        self._say(response)

    def respond(self, response: Response) -> None:
        """See `Stream`."""
        self._say(response)

    def send(self, data: memoryview | bytes) -> None:
        """See `Stream`."""
        engine = self._client.engine
        if not engine.can_send(self.id):
            return
        if not self._unsent:
            self._since = time.monotonic()
        self._client.framing.send_data(self.id, bytes(data), end_stream=False)
        self._unsent = engine.unsent(self.id)
        if not self._full and self._unsent > self._client.water and self.exchange is not None:
            self._full = True
            self._since = time.monotonic()
            if self.carrying is not None:
                self.carrying.upstream.pause()
            else:
                self.exchange.client_full()
        self._client.quic.flush_soon()

    def flush(self) -> None:
        """See `Stream`: what is held back here goes out with the turn of the loop."""

    def finish(self, trailers: Fields) -> None:
        """See `Stream`."""
        engine = self._client.engine
        if engine.can_send(self.id):
            if trailers:
                self._client.framing.send_headers(self.id, raw_fields(trailers), end_stream=True)
            else:
                self._client.framing.send_data(self.id, b"", end_stream=True)
        # RFC 9114 section 4.1: what is not needed for the answer need not be sent.
        engine.refuse_more(self.id, ErrorCode.H3_NO_ERROR)
        self._over()
        self._client.quic.flush_soon()

    def fail(self) -> None:
        """See `Stream`."""
        self.exchange = None
        self.give_up(ErrorCode.H3_INTERNAL_ERROR)

    def pause(self) -> None:
        """See `Stream`."""
        self._paused = True

    def resume(self) -> None:
        """See `Stream`."""
        self._paused = False
        self._since = time.monotonic()
        if self._pieces or self._ended:
            asyncio.get_running_loop().call_soon(self._feed_on)

    def switch(
        self, exchange: Exchange, conversation: Conversation, response: Response, upstream: Upstream
    ) -> None:
        """See `Stream`."""
        site = self._client.site
        if not accepts(exchange.request, response):
            misunderstood(site, self, conversation, upstream)
            return
        self.respond(accepted(response))
        self.carrying = OnStream(site, self, exchange, conversation, upstream)
        upstream.take_over(self.carrying)
        site.ledger.opened(conversation, upstream.backend)
        self.resume()

    # ---- of Carried

    def carry(self, data: memoryview | bytes) -> None:
        """See `Carried`."""
        self.send(data)

    def carried(self) -> None:
        """See `Carried`."""
        if self.carrying is not None:
            self.carrying = None
            self.finish(())

    # ---- within

    def _begin(self, request: Request, *, ends: bool) -> None:
        self._left = None if ends or request.websocket else request.length
        self._ended, self._passed_on = ends, ends or request.websocket
        if self._client.quic.early:
            request = hastened(request)
        exchange = self.exchange = Exchange(self._client.site, self, request)
        exchange.begin(complete=self._passed_on)

    def feed(self) -> None:
        """Give on what has come, if it is taken."""
        exchange = self.exchange
        if self._feeding or (exchange is not None and exchange.request.websocket and self.carrying is None):
            # What comes ahead of the answer to a handshake waits for it.
            return
        self._feeding = True
        while self._pieces and not self._paused and self.exchange is not None:
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self._client.engine.take(self.id, len(data))
            if self.carrying is not None:
                self.carrying.send(data)
            else:
                self.exchange.send(data)
        self._feeding = False
        if self.carrying is not None:
            if self._ended and not self._pieces:
                self.carrying.end()
            return
        if self._ended and not (self._passed_on or self._pieces or self.exchange is None):
            self._passed_on = True
            self.exchange.finish(self._trailers)

    def _feed_on(self) -> None:
        self.feed()
        self._client.quic.flush_soon()

    def _say(self, response: Response) -> None:
        if self._client.engine.can_send(self.id):
            self._client.framing.send_headers(self.id, raw_fields(write_response(response)))
            self._client.quic.flush_soon()

    def _wants_more(self) -> bool:
        """Whether the client still has to send of its request."""
        return not (self._paused or self._ended or self._passed_on)

    def _refuse(self, unfit: Unfit) -> None:
        """Answer a request that cannot be read, where nothing has been answered yet."""
        exchange, self.exchange = self.exchange, None
        self._client.note(unfit.reason)
        if exchange is not None:
            answering = exchange.phase is Phase.ANSWERING
            exchange.abort()
            if answering:
                self.give_up(ErrorCode.H3_MESSAGE_ERROR)
                return
        response, body = refusal(unfit)
        self.respond(response)
        self.send(body)
        self.finish(())

    def end_carrying(self, reason: Reason = Reason.RESET) -> None:
        """End what it has become by a switch of protocols, if it has; without a word to the client."""
        carrying, self.carrying = self.carrying, None
        if carrying is not None:
            carrying.end(reason)

    def _over(self) -> None:
        """It is answered; what the client has not taken yet is waited for."""
        self.exchange = None
        self._answered = True
        self._drop()
        self._since = time.monotonic()
        self._release()

    def _finished(self, *, wasted: bool) -> None:
        self._drop()
        self._release()
        self._client.over(self, wasted=wasted)

    def _drop(self) -> None:
        """Throw away what is held: nobody takes it any more."""
        self._client.engine.take(self.id, sum(map(len, self._pieces)))
        self._pieces.clear()

    def _release(self) -> None:
        counts, self._counts = self._counts, None
        if counts is not None:
            counting, taken = counts
            counting.release(taken)
            self._client.released()
