"""A connection to a backend that speaks HTTP/2: many exchanges at the same time, each on its own stream."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from marchproxy.dataplane.http.http2.frames import Frames
from marchproxy.dataplane.http.http2.link import STREAM_WINDOW, Link, Outgoing, header_fields, speak
from marchproxy.dataplane.http.messages import Fields, Request, Response
from marchproxy.dataplane.http.pseudofields import (
    RawFields,
    read_response,
    read_trailers,
    write_request,
)
from marchproxy.dataplane.http.responses import MAX_HEAD
from marchproxy.dataplane.http.tracing import REQUEST_ID
from marchproxy.dataplane.http.upstream import MOST_INTERIM, Asking
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Backend

REPEATED = 64 * 1024
"""Bytes of a request's body that are kept until its backend has looked at it."""
MOST_TIMES = 2
"""That a request is sent: a backend that refuses it again and again is not asked for ever."""
DEAF = 10.0
"""Seconds without a byte, after which a connection whose request is given up gets no others."""
_ENDLESS = float("inf")
_SETTINGS = {
    SettingCodes.ENABLE_PUSH: 0,
    SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
    SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
}


class BackendStream:
    """What carries one exchange (see `Carrier`); by another connection where one refuses it unread."""

    def __init__(self, link: "BackendLink", again: "Callable[[BackendStream], None]") -> None:
        self.backend = link.backend
        self.times = 0
        self._again = again
        self._link: BackendLink | None = link
        """None while there is no connection."""
        self._number = 0
        self._began = 0.0
        self._out: Outgoing | None = None
        self._asking: Asking | None = None
        self._request: Request | None = None
        self._response: Response | None = None
        self._interim = self._came = self._owed = 0
        self._trailers: Fields = ()
        self._paused = self._full = False
        self._kept: list[bytes] | None = []
        """The body so far; None: it is too much to be sent again."""
        self._size = 0
        self._end: Fields | None = None
        """The trailers of a request whose body is complete."""

    # ---- for exchanges

    def ask(self, asking: Asking, request: Request, made: str) -> None:
        """See `Carrier`."""
        if made:
            request = replace(request, fields=(*request.fields, (REQUEST_ID, made)))
        self._asking, self._request = asking, request
        self._begin()

    def send(self, data: memoryview | bytes) -> None:
        """See `Carrier`."""
        self._size += len(data)
        if self._size > REPEATED and self._link is not None:
            self._kept = None
        if self._kept is not None:
            self._kept.append(bytes(data))
        if self._out is not None:
            self._out.data(data)

    def finish(self, trailers: Fields) -> None:
        """See `Carrier`."""
        self._end = trailers
        if self._out is not None:
            self._out.end(trailers)

    def abandon(self) -> None:
        """See `Carrier`."""
        self._asking = None
        link = self._link
        if link is not None and time.monotonic() - max(self._began, link.heard) > DEAF:
            # It may be dead: who comes next shall not wait for it, too.
            link.leaving = True
        self._leave(ErrorCodes.CANCEL)

    def pause(self) -> None:
        """See `Carrier`: the window stays shut for what comes meanwhile."""
        self._paused = True

    def resume(self) -> None:
        """See `Carrier`."""
        self._paused = False
        owed, self._owed = self._owed, 0
        if self._link is not None:
            self._link.taken(owed, self._number)

    # ---- for the connection and its pool

    @property
    def waits(self) -> bool:
        """Whether anybody waits for an answer."""
        return self._asking is not None

    def move(self, link: "BackendLink") -> None:
        """Ask once more, by another connection."""
        self._link = link
        self._begin()
        if self._full and self._asking is not None:
            self._full = False
            self._asking.upstream_ready()

    def informed(self, raw: RawFields) -> None:
        """An interim answer."""
        self._interim += 1
        try:
            response = read_response(raw, "", ends=False)
        except Unfit as unfit:
            self.fail(Reason.UPSTREAM_REFUSED, unfit.detail)
            return
        if self._interim > MOST_INTERIM:
            self.fail(Reason.UPSTREAM_REFUSED, f"the backend sends over {MOST_INTERIM} interim answers")
        elif self._asking is not None:
            self._asking.informed(response)

    def answered(self, raw: RawFields, *, ends: bool) -> None:
        """The head of the answer."""
        self._kept = None
        method = self._request.method if self._request else ""
        try:
            self._response = read_response(raw, method, ends=ends)
        except Unfit as unfit:
            self.fail(Reason.UPSTREAM_REFUSED, unfit.detail)
            return
        if self._asking is not None:
            self._asking.answered(self._response)

    def received(self, data: bytes, size: int) -> None:
        """A piece of its body, and what it counts for in windows."""
        self._came += len(data)
        if self._response is None or (self._response.bodiless and data):
            self.fail(Reason.UPSTREAM_REFUSED, "the backend sends a body where there is none")
            return
        if data and self._asking is not None:
            self._asking.received(data)
        if self._link is None:
            return
        if self._paused:
            self._owed += size
        else:
            self._link.taken(size, self._number)

    def trailed(self, raw: RawFields) -> None:
        """What comes behind the body."""
        try:
            self._trailers = read_trailers(raw)
        except Unfit as unfit:
            self.fail(Reason.UPSTREAM_REFUSED, unfit.detail)

    def ended(self) -> None:
        """That was all of the answer."""
        response, asking = self._response, self._asking
        if response is None or asking is None:
            return
        if response.length is not None and not response.bodiless and self._came != response.length:
            self.fail(Reason.UPSTREAM_REFUSED, "the backend's answer is shorter than it said")
            return
        self._asking = None
        unsent = self._out is not None and (self._end is None or self._out.waits)
        self._leave(ErrorCodes.CANCEL if unsent else None)
        asking.complete(self._trailers)

    def refused(self, detail: str) -> None:
        """The backend has not looked at it (RFC 9113 section 8.7): once more where it can be said again."""
        if self._kept is None or self.times >= MOST_TIMES or self._asking is None:
            self.fail(Reason.UPSTREAM_REFUSED, detail)
            return
        self._leave(None)
        if not self._full:
            self._full = True
            self._asking.upstream_full()
        self._again(self)

    def fail(self, reason: Reason, detail: str) -> None:
        """There will be no answer."""
        asking, self._asking = self._asking, None
        self._leave(ErrorCodes.CANCEL)
        if asking is not None:
            asking.failed(reason, detail)

    def flush(self) -> None:
        """What could be read by now has been."""
        if self._asking is not None:
            self._asking.flush()

    # ---- of Sending

    def sending_full(self) -> None:
        """See `Sending`."""
        if self._asking is not None and not self._full:
            self._full = True
            self._asking.upstream_full()

    def sending_ready(self) -> None:
        """See `Sending`."""
        if self._asking is not None and self._full:
            self._full = False
            self._asking.upstream_ready()

    def sending_over(self) -> None:
        """The request is complete."""

    # ---- within

    def _begin(self) -> None:
        link, request = self._link, self._request
        if link is None or request is None:
            return
        self.times += 1
        self._began = time.monotonic()
        number = link.begin(self, request)
        if number is None:
            # The backend has changed its mind about how many it takes, or is gone, a moment ago.
            asyncio.get_running_loop().call_soon(self.refused, "the backend takes no more requests")
            return
        self._number = number
        if request.length == 0:
            return
        self._out = Outgoing(link, number, self)
        for piece in self._kept or ():
            self._out.data(piece)
        if self._end is not None:
            self._out.end(self._end)

    def _leave(self, code: ErrorCodes | None) -> None:
        """Be gone from the connection; `code`: there it is not over."""
        link, self._link = self._link, None
        out, self._out = self._out, None
        if out is not None:
            out.drop()
        if link is not None:
            link.forget_stream(self._number, self._owed, code)
        self._owed = 0


class BackendLink(Link):
    """The connection."""

    def __init__(self, backend: Backend, gone: "Callable[[BackendLink], None]") -> None:
        super().__init__(speak(client=True, settings=_SETTINGS), Frames(preface=False, resets=_ENDLESS))
        self.backend = backend
        self.idle_since = time.monotonic()
        self.leaving = False
        """Nothing more is asked."""
        self.streams: dict[int, BackendStream] = {}
        self._gone = gone
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the backend has said that it speaks HTTP/2 and how many requests it takes, or is gone."""
        self._touched: dict[BackendStream, None] = {}
        self.handle(ResponseReceived, self._answer)
        self.handle(InformationalResponseReceived, self._inform)
        self.handle(DataReceived, self._data)
        self.handle(TrailersReceived, self._trail)
        self.handle(StreamEnded, self._end)
        self.handle(StreamReset, self._reset)

    @property
    def room(self) -> bool:
        """Whether one more can be asked."""
        if self.over or self.leaving or self.transport.is_closing():
            return False
        return len(self.streams) < self.h2.remote_settings.max_concurrent_streams

    def begin(self, stream: BackendStream, request: Request) -> int | None:
        """Send the head of a request; returns the number of its stream. None: no more can be asked."""
        if not self.room:
            return None
        scheme = "https" if self.backend.tls else "http"
        place = Endpoint(self.backend.address, self.backend.port)
        fields = write_request(request, scheme, request.about, place)
        try:
            number = self.h2.get_next_available_stream_id()
            self.h2.send_headers(number, header_fields(fields), end_stream=request.length == 0)
        except ProtocolError:
            self.leaving = True
            return None
        self.streams[number] = stream
        self.flush_soon()
        return number

    def forget_stream(self, number: int, owed: int, code: ErrorCodes | None) -> None:
        """One is over, or has to be, and so many bytes of it were not taken."""
        if self.streams.pop(number, None) is None:
            return
        self.taken(owed, number)
        if code is not None:
            self.reset(number, code)
        self.idle_since = time.monotonic()
        if self.leaving and not self.streams:
            self.close()

    def tick(self, now: float, silence: float, head: float) -> None:
        """See to what takes too long."""
        if self.over:
            self.linger(now)
        elif self.stuck(now, silence, head):
            self.transport.abort()

    # ---- of Link

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        touched, self._touched = self._touched, {}
        for stream in touched:
            stream.flush()

    def left(self) -> None:
        """See `Link`: what is above the last stream was not looked at (RFC 9113 section 6.8)."""
        self.leaving = True
        last = self.frames.farewell.last if self.frames.farewell else 0
        for number, stream in tuple(self.streams.items()):
            if number > last:
                stream.refused("the backend ends the connection")
        if not self.streams:
            self.close()

    def lost(self) -> None:
        """See `Link`."""
        if not self.told.done():
            self.told.set_result(None)
        for stream in tuple(self.streams.values()):
            stream.fail(Reason.RESET, "the backend ended the connection before its answer was complete")
        self._gone(self)

    # ---- what comes

    def _settings(self, event: RemoteSettingsChanged) -> None:
        super()._settings(event)
        if not self.told.done():
            self.told.set_result(None)

    def _find(self, number: int | None) -> BackendStream | None:
        stream = self.streams.get(number or 0)
        if stream is not None:
            self._touched[stream] = None
        return stream

    def _answer(self, event: ResponseReceived) -> None:
        if stream := self._find(event.stream_id):
            stream.answered(_raw(event.headers), ends=event.stream_ended is not None)

    def _inform(self, event: InformationalResponseReceived) -> None:
        if stream := self._find(event.stream_id):
            stream.informed(_raw(event.headers))

    def _data(self, event: DataReceived) -> None:
        if stream := self._find(event.stream_id):
            stream.received(event.data, event.flow_controlled_length)
        else:
            self.taken(event.flow_controlled_length, event.stream_id)

    def _trail(self, event: TrailersReceived) -> None:
        if stream := self._find(event.stream_id):
            stream.trailed(_raw(event.headers))

    def _end(self, event: StreamEnded) -> None:
        if stream := self._find(event.stream_id):
            stream.ended()

    def _reset(self, event: StreamReset) -> None:
        stream = self._find(event.stream_id)
        if stream is None:
            return
        if event.error_code == ErrorCodes.REFUSED_STREAM and event.remote_reset:
            stream.refused("the backend refuses the request")
        else:
            stream.fail(Reason.RESET, "the backend has reset the request")


def _raw(headers: object) -> RawFields:
    """Fields as the library gives them where it decodes nothing."""
    return headers  # type: ignore[return-value]
