"""One connection to a backend that speaks HTTP/1.1: an exchange at a time, kept for the next one."""

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol, cast

from marchproxy.dataplane.http.bodies import Body, Counted, UntilClose, chunk, last_chunk
from marchproxy.dataplane.http.circuits import FAILURES
from marchproxy.dataplane.http.messages import Fields, Request, Response
from marchproxy.dataplane.http.requests import write_request
from marchproxy.dataplane.http.responses import (
    SWITCHING,
    answer_length,
    body_again,
    read_response,
    write_response,
)
from marchproxy.dataplane.http.tracing import with_id
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Backend

HIGH_WATER = 256 * 1024
"""Bytes that wait to be written before no more are taken from the other side."""
LINGER = 5.0
"""Seconds for a backend that has answered to take the rest of the request."""
REPEATED = "GET"
"""The method of requests that need no exchange of their own."""
MOST_INTERIM = 64
"""Interim answers to one request: a backend must not keep it going by these."""


class Asking(Protocol):
    """Whoever has sent a request, and hears what comes of it."""

    def informed(self, response: Response) -> None:
        """An interim answer has come."""

    def answered(self, response: Response) -> None:
        """The head of the answer has come."""

    def received(self, data: memoryview | bytes) -> None:
        """A piece of its body."""

    def flush(self) -> None:
        """What could be read by now has been."""

    def complete(self, trailers: Fields) -> None:
        """The answer is complete, and the connection no longer its asker's."""

    def failed(self, reason: Reason, detail: str) -> None:
        """It ended before that."""

    def upstream_full(self) -> None:
        """Send no more for now."""

    def upstream_ready(self) -> None:
        """Send on."""


class Carrier(Protocol):
    """What carries an exchange to a backend."""

    backend: Backend

    def ask(self, asking: Asking, request: Request, made: str) -> None:
        """Send the head of a request; its body follows by `send` and `finish`. `made`: the id that it is
        given; empty: it came with one.
        """

    def send(self, data: memoryview | bytes) -> None:
        """Send a piece of the body."""

    def finish(self, trailers: Fields) -> None:
        """The body is complete."""

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""

    def pause(self) -> None:
        """Give no more of the answer for now."""

    def resume(self) -> None:
        """Give on."""


class Connections(Protocol):
    """Where carriers come from."""

    def take(self, backend: Backend) -> Carrier | None:
        """One that is at once; None: there is none."""

    async def connect(self, backend: Backend) -> Carrier:
        """One by a new connection. Raises `OSError`; TLS that fails is one."""


@dataclass(slots=True)
class Known:
    """A head of an answer that can come again, with a body of the same length."""

    head: bytes
    method: str
    """That of the request."""
    response: Response
    end: int
    """Bytes of the head."""
    size: int
    """Bytes of head and body."""
    plain: bytes = b""
    """What `write` has found; empty: nothing yet."""

    def write(self) -> bytes:
        """The head for a client of HTTP/1.1 whose connection goes on; empty: this is not only passed on."""
        if self.method == REPEATED and self.response.keeps and self.response.status not in FAILURES:
            self.plain = write_response(self.response, "1.1", keeps=True)
        return self.plain


class Repeating(Protocol):
    """Whoever has repeated a request, and expects the answer that came before."""

    def repeated(self, known: Known, data: bytes) -> float:
        """Pass a whole answer on, whose head is known, and return when that was; 0.0: it has to be read."""

    def unfold(self) -> None:
        """Anything else has: have somebody take over who can tell what (`Upstream.hand_over`)."""


class Keeper(Protocol):
    """Where connections go that are free."""

    def keep(self, upstream: "Upstream") -> None:
        """Take one for the next exchange."""

    def gone(self, upstream: "Upstream") -> None:
        """One has ended."""


class Upstream(asyncio.Protocol):
    """The connection."""

    def __init__(self, keeper: Keeper, backend: Backend, *, secure: bool) -> None:
        self.backend = backend
        self.secure = secure
        """TLS is spoken with it."""
        self.idle_since = 0.0
        self.transport: asyncio.Transport
        self._keeper = keeper
        self._asking: Asking | None = None
        self._repeating: Repeating | None = None
        """Then nobody is `_asking`."""
        self._method = ""
        self._chunked = self._sent = False
        self._interim = 0
        self._held = b""
        self._body: Body | None = None
        self._response: Response | None = None
        self._known: Known | None = None
        """The last head."""
        self._switched = False

    # ---- for exchanges

    def ask(self, asking: Asking, request: Request, made: str) -> None:
        """See `Carrier`."""
        self._begin(asking, request)
        if not request.encoded:
            place = Endpoint(self.backend.address, self.backend.port)
            request.encoded = write_request(request, request.about, place)
        self.transport.write(with_id(request.encoded, made) if made else request.encoded)

    def send(self, data: memoryview | bytes) -> None:
        """See `Carrier`."""
        self.transport.write(chunk(data) if self._chunked else data)

    def finish(self, trailers: Fields) -> None:
        """See `Carrier`."""
        if self._chunked:
            self.transport.write(last_chunk(trailers))
        self._sent = True

    def repeat(self, repeating: Repeating, head: bytes) -> None:
        """Send a request without body whose like an exchange has sent before."""
        self._repeating = repeating
        self.transport.write(head)

    def hand_over(self, asking: Asking, request: Request) -> None:
        """Have an exchange hear what comes of a request that was repeated."""
        self._repeating = None
        self._begin(asking, request)
        self._sent = True

    def take_over(self, asking: Asking) -> None:
        """Hear of bytes from here on, which are no answers."""
        self._asking = asking

    def abandon(self) -> None:
        """See `Carrier`."""
        self._asking = None
        self.transport.abort()

    def pause(self) -> None:
        """See `Carrier`."""
        self.transport.pause_reading()

    def resume(self) -> None:
        """See `Carrier`."""
        self.transport.resume_reading()

    @property
    def free(self) -> bool:
        """Whether it can be used."""
        return self._asking is None and self._repeating is None and not self.transport.is_closing()

    # ---- of asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        repeating = self._repeating
        if repeating is not None:
            known = self._known
            if (
                known is not None
                and len(data) == known.size
                and data.startswith(known.head)
                # What the backend did not take yet of this request would hold back the next.
                and not self.transport.get_write_buffer_size()
                and (passed := repeating.repeated(known, data))
            ):
                self._repeating = None
                self.idle_since = passed
                self._keeper.keep(self)
                return
            repeating.unfold()
        if self._asking is None:
            # Nothing was asked: whatever this answers, it is not the next request.
            self.transport.abort()
            return
        if self._switched:
            self._asking.received(data)
            return
        if self._held:
            data, self._held = self._held + data, b""
        asking = self._asking
        try:
            self._read(data)
        except Unfit as unfit:
            self._fail(Reason.UPSTREAM_REFUSED, unfit.detail)
        if self._asking is asking:
            asking.flush()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`; closes."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._keeper.gone(self)
        if self._repeating is not None:
            self._repeating.unfold()
        asking, self._asking = self._asking, None
        if asking is None:
            return
        # What ends by a reset may lack its end (RFC 9112 section 8).
        if self._switched or (isinstance(self._body, UntilClose) and exc is None):
            asking.complete(())
        else:
            asking.failed(Reason.RESET, "the backend ended the connection before its answer was complete")

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._repeating is not None:
            self._repeating.unfold()
        if self._asking:
            self._asking.upstream_full()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._asking:
            self._asking.upstream_ready()

    # ---- within

    def _begin(self, asking: Asking, request: Request) -> None:
        self._asking = asking
        self._method = request.method
        self._chunked = request.length is None
        self._sent = False
        self._interim = 0
        self._body = self._response = None

    def _read(self, data: bytes) -> None:
        while data and self._asking is not None:
            if self._switched:
                self._asking.received(data)
                return
            if self._body is None:
                known = self._known
                if known is not None and known.method == self._method and data.startswith(known.head):
                    # Backends say the same for a second, until their `Date` is another.
                    end = known.end
                    self._head(known.response, body_again(known.response))
                else:
                    found = answer_length(data)
                    if found is None:
                        self._held = data
                        return
                    end = found
                    self._head(*self._understand(data[:end]))
                data = data[end:]
            else:
                data = data[self._body.feed(data, self._asking.received) :]
            if self._body is not None and self._body.done:
                self._over(data)

    def _head(self, response: Response, body: Body) -> None:
        asking = self._asking
        if asking is None:
            return
        if response.status < 200 and response.interim:
            self._interim += 1
            if self._interim > MOST_INTERIM:
                raise Unfit(Reason.MALFORMED, f"the backend sends over {MOST_INTERIM} interim answers")
            asking.informed(response)
            return
        self._response, self._body = response, body
        self._switched = response.status == SWITCHING
        asking.answered(response)

    def _understand(self, head: bytes) -> tuple[Response, Body]:
        response, body = read_response(head, self._method)
        self._known = None
        if isinstance(body, Counted):
            self._known = Known(head, self._method, response, len(head), len(head) + body.left)
        return response, body

    def _over(self, rest: bytes) -> None:
        """The answer is complete: be free for the next request, if this one is complete, too. `rest` came
        behind it.
        """
        asking, response, body = self._asking, self._response, self._body
        if self._switched or asking is None or response is None or body is None:
            return
        self._asking = None
        # What the backend did not take yet of one request would hold back the next.
        unsent = self.transport.get_write_buffer_size()
        keeps = response.keeps and self._sent and not (rest or unsent or self.transport.is_closing())
        if keeps:
            # Its last asker may have had no room, which is nothing to the next.
            self.transport.resume_reading()
            self.idle_since = time.monotonic()
            self._keeper.keep(self)
        else:
            self.transport.close()
            if unsent:
                asyncio.get_running_loop().call_later(LINGER, self.transport.abort)
        asking.complete(body.trailers)

    def _fail(self, reason: Reason, detail: str) -> None:
        asking, self._asking = self._asking, None
        self.transport.abort()
        if asking:
            asking.failed(reason, detail)
