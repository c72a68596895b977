"""One stream of a client's connection: a request and its answer."""

import time
from collections import deque
from typing import TYPE_CHECKING

from h2.errors import ErrorCodes

from marchproxy.dataplane.http.exchange import Exchange, Phase
from marchproxy.dataplane.http.http2.link import LINGER, Outgoing
from marchproxy.dataplane.http.messages import Fields, Request, Response
from marchproxy.dataplane.http.pseudofields import write_response
from marchproxy.dataplane.http.upstream import Upstream
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.dataplane.http.way import Ways
from marchproxy.dataplane.http.websockets import OnStream, accepted, accepts, misunderstood
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Answer

if TYPE_CHECKING:
    from marchproxy.dataplane.http.http2.client import Http2Connection


class ClientStream:
    """See `Stream` of `connections`."""

    ways: Ways | None = None

    def __init__(self, connection: "Http2Connection", number: int, request: Request) -> None:
        self.number = number
        self.secure = connection.secure
        self.shown = connection.shown
        self.out = Outgoing(connection, number, self)
        self.exchange = Exchange(connection.site, self, request)
        self.carrying: OnStream | None = None
        """What it has become."""
        self._connection = connection
        self._request = request
        self._conversation: Conversation | None = None
        self._inbox: deque[tuple[bytes, int]] = deque()
        """What has come and nobody took yet, with what each piece counts for: no more than a window."""
        self._came = 0
        self._paused = False
        self._ended = False
        """The client has sent everything."""
        self._told = False
        """So the exchange was told."""
        self._trailers: Fields = ()
        self._moved = time.monotonic()
        self._lingers: float | None = None
        """Since when the answer is complete, and the request is not."""

    # ---- from the connection

    def begin(self, *, ends: bool) -> None:
        """Begin; `ends`: there is no body."""
        self._ended = ends
        self._told = ends or self._request.websocket
        self.exchange.begin(complete=self._told)

    def received(self, data: bytes, size: int) -> None:
        """A piece of the body, and what it counts for in windows."""
        if self._lingers is not None:
            self._connection.taken(size, self.number)
            return
        self._moved = time.monotonic()
        self._came += len(data)
        self._inbox.append((data, size))
        self._deliver()

    def client_ended(self, trailers: Fields) -> None:
        """The client has sent everything."""
        self._moved = time.monotonic()
        self._ended, self._trailers = True, trailers
        if self._lingers is not None:
            self._leave()
            return
        length = self._request.length
        if not self._request.websocket and length is not None and self._came != length:
            # Behind trailers the library does not count.
            self.abort(ErrorCodes.PROTOCOL_ERROR)
            return
        self._deliver()

    def abort(self, code: ErrorCodes | None, reason: Reason = Reason.RESET) -> None:
        """End at once; the client is told by `code`, unless it knows."""
        self.exchange.abort()
        if self.carrying is not None:
            self.carrying.end(reason)
        self._leave()
        if code is not None:
            self._connection.reset(self.number, code)

    def recheck(self) -> None:
        """End it if the plan in force no longer allows it."""
        if not self.exchange.still_allowed():
            self.abort(ErrorCodes.CANCEL, Reason.POLICY_CHANGED)

    def opened_by(self, token: str) -> bool:
        """Whether this credential has."""
        verified = self.exchange.verified
        return verified is not None and verified.token == token

    def tick(self, now: float) -> None:
        """See to what takes too long."""
        site = self._connection.site
        if self._lingers is not None:
            if now - self._lingers > LINGER:
                self._connection.reset(self.number, ErrorCodes.NO_ERROR)
                self._leave()
            return
        if self.carrying is not None:
            idle = site.ledger.evaluator.plan.settings.tunnel_idle
            if idle and self.carrying.conversation.idle() > idle:
                self.carrying.end(Reason.IDLE)
        else:
            self.exchange.overdue(now)
        waits = bool(self.out.size) or not (self._ended or self._paused or self.carrying or self._told)
        if waits and now - max(self._moved, self.out.moved) > self.exchange.patience:
            self.abort(ErrorCodes.CANCEL)

    # ---- of Stream

    @property
    def visitor(self) -> Visitor:
        """See `Stream`."""
        return self._connection.visitor

    def conversation(self, answer: Answer, request: Request) -> Conversation:
        """See `Stream`."""
        self._conversation = self._connection.asked.take(self.visitor, answer, request)
        return self._conversation

    def inform(self, response: Response) -> None:
        """See `Stream`."""
        self.out.head(write_response(response))

    def respond(self, response: Response) -> None:
        """See `Stream`."""
        fields, told = write_response(response), self.visitor.alternative
        if told and self.secure:
            fields = (*fields, ("alt-svc", told.decode()))
        self.out.head(fields)

    def send(self, data: memoryview | bytes) -> None:
        """See `Stream`."""
        if data:
            self.out.data(data)

    def flush(self) -> None:
        """See `Stream`: the connection does, for all of them."""

    def finish(self, trailers: Fields) -> None:
        """See `Stream`."""
        self.out.end(trailers)

    def fail(self) -> None:
        """See `Stream`."""
        self._leave()
        self._connection.reset(self.number, ErrorCodes.INTERNAL_ERROR)

    def pause(self) -> None:
        """See `Stream`: the window is not opened again for what is not taken."""
        self._paused = True

    def resume(self) -> None:
        """See `Stream`."""
        if self._paused:
            self._paused = False
            self._moved = time.monotonic()
        self._deliver()

    def switch(
        self, exchange: Exchange, conversation: Conversation, response: Response, upstream: Upstream
    ) -> None:
        """See `Stream`."""
        site = self._connection.site
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
        self.out.data(data)

    def carried(self) -> None:
        """See `Carried`."""
        self.out.end(())

    # ---- of Sending

    def sending_full(self) -> None:
        """See `Sending`."""
        if self.carrying is not None:
            self.carrying.upstream.pause()
        else:
            self.exchange.client_full()

    def sending_ready(self) -> None:
        """See `Sending`."""
        if self.carrying is not None:
            self.carrying.upstream.resume()
        else:
            self.exchange.client_ready()

    def sending_over(self) -> None:
        """See `Sending`. Who still sends is listened to for a moment, and then told not to go on (RFC 9113
        section 8.1): some clients lose the answer when they are told at once.
        """
        if self._ended:
            self._leave()
        else:
            self._lingers = time.monotonic()
            self._discard()

    # ---- within

    def _deliver(self) -> None:
        """Hand on what has come."""
        if self._request.websocket and self.carrying is None and self.exchange.phase is not Phase.OVER:
            return
        while self._inbox and not self._paused:
            data, size = self._inbox.popleft()
            if self.carrying is not None:
                self.carrying.send(data)
            else:
                self._connection.site.carry(self.exchange.conversation, size)
                if data:
                    self.exchange.send(data)
            self._connection.taken(size, self.number)
        if self._ended and not self._inbox:
            if self.carrying is not None:
                self.carrying.end()
            elif not self._told:
                self._told = True
                self.exchange.finish(self._trailers)

    def _discard(self) -> None:
        while self._inbox:
            self._connection.taken(self._inbox.popleft()[1], self.number)

    def _leave(self) -> None:
        """It is over: what nobody took counts no more."""
        self.out.drop()
        self._discard()
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            self._connection.asked.release(conversation)
        self._connection.forget_stream(self)
