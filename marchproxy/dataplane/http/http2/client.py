"""An HTTP/2 connection of a client: many requests at the same time, each an exchange on its own stream."""

import asyncio
import time

from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    PingAckReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes, Settings

from marchproxy.dataplane.admission.arrivals import BEFORE_POLICY
from marchproxy.dataplane.credentials.clientcerts import NOTHING_SHOWN, Shown
from marchproxy.dataplane.http.answers import refusal
from marchproxy.dataplane.http.connections import Owner
from marchproxy.dataplane.http.conversations import Conversations
from marchproxy.dataplane.http.http2.frames import Frames
from marchproxy.dataplane.http.http2.link import STREAM_WINDOW, Link, Outgoing, speak
from marchproxy.dataplane.http.http2.stream import ClientStream
from marchproxy.dataplane.http.messages import Fields, Request
from marchproxy.dataplane.http.pseudofields import RawFields, read_request, read_trailers, write_response
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.dataplane.proxy.protocol.http_head import MAX_HEAD
from marchproxy.model.reason import Reason

MOST_STREAMS = 100
"""Requests of one connection at the same time; above it they are refused, and may be asked again."""
RESETS = 200
"""Streams that a client may reset at once, and a tenth of them each second: pages that are left reset what
they had asked for. What cannot be read counts the same."""
_SETTLE = 1.0
"""Seconds between the two GOAWAY of section 6.8, where the client does not answer a ping."""
_SETTINGS = {
    SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
    SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
    SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
    SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
}
_MORE = {SettingCodes.MAX_CONCURRENT_STREAMS: 10 * MOST_STREAMS}
_DRAINING = b"draining"
_REMEMBERED, _SMALL = 8, 4096
"""Heads, and bytes of one."""

type Head = tuple[tuple[bytes, bytes], ...]


class Http2Connection(Link):
    """The connection."""

    def __init__(
        self, site: Site, visitor: Visitor, owner: Owner, *, secure: bool, shown: Shown = NOTHING_SHOWN
    ) -> None:
        super().__init__(speak(client=False, settings=_SETTINGS), Frames(preface=True, resets=RESETS))
        self.site = site
        self.secure = secure
        self.shown = shown
        self.asked = Conversations(site)
        self.streams: dict[int, ClientStream] = {}
        self._visitor = visitor
        self._owner = owner
        self._known: dict[tuple[Head, bool], tuple[Request, int]] = {}
        """The last few heads, and what they say."""
        self._trailers: dict[int, Fields] = {}
        self._draining: float | None = None
        """When the first GOAWAY was sent."""
        self._last: int | None = None
        """No stream above this one is looked at."""
        self._since = time.monotonic()
        """When the last request was over."""
        self.handle(RequestReceived, self._request)
        self.handle(DataReceived, self._data)
        self.handle(TrailersReceived, self._trailing)
        self.handle(StreamEnded, self._ended)
        self.handle(StreamReset, self._reset)
        self.handle(PingAckReceived, self._answered)

    # ---- for the listener

    @property
    def visitor(self) -> Visitor:
        """See `Connection`."""
        if self._visitor.evaluator is not self.site.ledger.evaluator:
            self._visitor = Visitor(self.site.ledger.evaluator, self._visitor.who)
        return self._visitor

    @property
    def conversations(self) -> tuple[Conversation, ...]:
        """See `Connection`."""
        carried = [each.carrying.conversation for each in self.streams.values() if each.carrying]
        return (*self.asked.every, *carried)

    def recheck(self) -> None:
        """See `Connection`."""
        visitor = self.visitor
        if visitor.blocked or not visitor.listens:
            self.end(Reason.POLICY_CHANGED)
            return
        for stream in tuple(self.streams.values()):
            stream.recheck()
        if self.secure is not bool(visitor.certificates):
            self.drain()

    def tick(self, now: float) -> None:
        """See `Connection`."""
        limits = self.site.limits
        if self.over:
            self.linger(now)
            return
        for stream in tuple(self.streams.values()):
            stream.tick(now)
        if self.stuck(now, limits.silence, limits.head):
            self.end()
        elif self._draining is not None and self._last is None and now - self._draining > _SETTLE:
            self._settle()
        elif not self.streams and now - self._since > limits.keepalive:
            self.protest(ErrorCodes.NO_ERROR)

    def revoke(self, token: str) -> int:
        """See `Connection`."""
        opened = [stream for stream in self.streams.values() if stream.opened_by(token)]
        for stream in opened:
            stream.abort(ErrorCodes.CANCEL, Reason.AUTH_REVOKED)
        return len(opened)

    def drain(self) -> None:
        """See `Connection`: requests that are on their way here are still answered (RFC 9113 section 6.8)."""
        if self._draining is None and not self.over:
            self._draining = time.monotonic()
            self.farewell()
            self.h2.ping(_DRAINING)
            self.flush_soon()

    def end(self, reason: Reason = Reason.RESET) -> None:
        """See `Connection`."""
        self.asked.interrupt()
        for stream in tuple(self.streams.values()):
            stream.abort(None, reason)
        self.over = True
        self.transport.abort()

    # ---- for streams

    def forget_stream(self, stream: ClientStream) -> None:
        """It is over."""
        if self.streams.pop(stream.number, None) is None:
            return
        self._since = time.monotonic()
        self._end_if_drained()

    # ---- of Link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        # Above its limit the library ends the connection; who has not heard of it yet is only refused.
        self.h2.local_settings = Settings(client=False, initial_values=_SETTINGS | _MORE)
        self._owner.begun(self)

    def lost(self) -> None:
        """See `Link`."""
        self.asked.interrupt()
        for stream in tuple(self.streams.values()):
            stream.abort(None)
        self.asked.close()
        self._owner.gone(self)
        self._owner.leave(self)

    def left(self) -> None:
        """See `Link`: what the client has asked for, it still gets."""
        if self._draining is None:
            self._draining = time.monotonic()
        self._settle()

    def flooded(self, detail: str) -> None:
        """See `Link`."""
        who = self._visitor.who
        self.site.ledger.refuse(who.query(), who.port, BEFORE_POLICY, Reason.RATE_LIMITED)

    # ---- what comes

    def _request(self, event: RequestReceived) -> None:
        number, ends = event.stream_id, event.stream_ended is not None
        late = self._last is not None and number > self._last
        if late or len(self.streams) >= MOST_STREAMS:
            if not late:
                self.frames.resets.spend(self.heard)
            self.reset(number, ErrorCodes.REFUSED_STREAM)
            return
        try:
            request, size = self._understand(tuple(_raw(event.headers)), ends=ends)
        except Unfit as unfit:
            self._refuse(number, unfit, ends=ends)
            return
        stream = self.streams[number] = ClientStream(self, number, request)
        stream.begin(ends=ends)
        self.site.carry(stream.exchange.conversation, size)

    def _data(self, event: DataReceived) -> None:
        stream, size = self.streams.get(event.stream_id), event.flow_controlled_length
        if not event.data and size and event.stream_ended is None:
            # Nothing but padding.
            self.frames.empty.spend(self.heard)
        if stream is None:
            self.taken(size, event.stream_id)
        else:
            stream.received(event.data, size)

    def _trailing(self, event: TrailersReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        try:
            self._trailers[event.stream_id] = read_trailers(_raw(event.headers))
        except Unfit:
            self.frames.resets.spend(self.heard)
            stream.abort(ErrorCodes.PROTOCOL_ERROR)

    def _ended(self, event: StreamEnded) -> None:
        trailers = self._trailers.pop(event.stream_id, ())
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.client_ended(trailers)

    def _reset(self, event: StreamReset) -> None:
        stream = self.streams.get(event.stream_id)
        if not event.remote_reset:
            # The library has done it, for an error of the client's: that costs as much (CVE-2025-8671).
            self.frames.resets.spend(self.heard)
        if stream is not None:
            stream.abort(None)

    def _answered(self, event: PingAckReceived) -> None:
        if event.ping_data == _DRAINING and self._draining is not None:
            self._settle()

    # ---- within

    def _understand(self, raw: Head, *, ends: bool) -> tuple[Request, int]:
        """What a head says, and its bytes. Clients ask for the same again and again."""
        known = self._known.get((raw, ends))
        if known is None:
            request = read_request(raw, "2", ends=ends)
            size = sum(len(name) + len(value) for name, value in raw)
            known = request, size
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            if size <= _SMALL and not request.websocket:
                self._known[raw, ends] = known
        return known

    def _refuse(self, number: int, unfit: Unfit, *, ends: bool) -> None:
        """Answer a request that cannot be read."""
        self.frames.resets.spend(self.heard)
        who = self._visitor.who
        self.site.ledger.refuse(who.query(), who.port, BEFORE_POLICY, unfit.reason)
        response, body = refusal(unfit)
        out = Outgoing(self, number, _Refused(self, number, ends=ends))
        out.head(write_response(response))
        out.data(body)
        out.end(())

    def _settle(self) -> None:
        """The client knows by now: what it asks from here on is not looked at."""
        if self._last is None:
            self._last = self.h2.highest_inbound_stream_id
            self.farewell(last=self._last)
            self._end_if_drained()

    def _end_if_drained(self) -> None:
        if self._last is not None and not self.streams and not self.over:
            self.close()


class _Refused:
    """Whose answer is ours, and goes nowhere else."""

    def __init__(self, connection: Http2Connection, number: int, *, ends: bool) -> None:
        self._connection = connection
        self._number = number
        self._ends = ends

    def sending_full(self) -> None:
        """It is short."""

    def sending_ready(self) -> None:
        """The same."""

    def sending_over(self) -> None:
        """See `Sending`."""
        if not self._ends:
            self._connection.reset(self._number, ErrorCodes.NO_ERROR)


def _raw(headers: object) -> RawFields:
    """Fields as the library gives them where it decodes nothing."""
    return headers  # type: ignore[return-value]
