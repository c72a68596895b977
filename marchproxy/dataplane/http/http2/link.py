"""What both ends of an HTTP/2 connection have in common: windows, back-pressure, who is sent for next."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, RemoteSettingsChanged, WindowUpdated
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hpack import NeverIndexedHeaderTuple
from hyperframe.frame import GoAwayFrame

from marchproxy.dataplane.http.http2.frames import Broken, Farewell, Flood, Frames
from marchproxy.dataplane.http.messages import Fields
from marchproxy.dataplane.http.upstream import HIGH_WATER

log = logging.getLogger(__name__)

STREAM_WINDOW = 256 * 1024
"""Bytes that may be under way to us on one stream: what its other side does not take is held up to that."""
CONNECTION_WINDOW = 4 * 1024 * 1024
"""The same of all streams of a connection: some that are stuck do not hold up the others."""
HIGH, LOW = 64 * 1024, 16 * 1024
"""Bytes of one stream that wait to be sent: above `HIGH` no more are taken, from `LOW` on they are again."""
MOST_HELD = 2 * 1024 * 1024
"""The same of all streams together: above it each of them is held to `LOW`."""
MOST_UNSENT = 1024 * 1024
"""Bytes that wait to be written beyond what bodies may: nobody answers so much who is not read from."""
MAX_TABLE = 4096
"""Bytes of the table with which heads are compressed, however much the peer offers."""
LINGER = 2.0
"""Seconds for a peer to take what is said last."""
_BATCH = 128 * 1024
_LARGEST = 2**31 - 1
_SHORT = 20
"""Characters of a cookie that few guesses find."""

ENDED = frozenset({ErrorCodes.NO_ERROR, ErrorCodes.CANCEL})
"""Codes with which nothing went wrong."""


class Sending(Protocol):
    """Whose bytes an `Outgoing` has."""

    def sending_full(self) -> None:
        """Give no more for now."""

    def sending_ready(self) -> None:
        """Give on."""

    def sending_over(self) -> None:
        """Everything has been sent, the end included."""


class Outgoing:
    """What is to be sent on one stream, in this order: heads, a body, its end with trailers."""

    __slots__ = ("_link", "_owner", "ended", "full", "heads", "moved", "number", "pieces", "size", "trailers")

    def __init__(self, link: "Link", number: int, owner: Sending) -> None:
        self._link = link
        self._owner = owner
        self.number = number
        self.heads: deque[Fields] = deque()
        self.pieces: deque[bytes] = deque()
        self.size = 0
        """Bytes in `pieces`."""
        self.trailers: Fields = ()
        self.ended = False
        """No more comes."""
        self.full = False
        """Its owner was told to wait."""
        self.moved = time.monotonic()
        """When anything was sent last."""

    def head(self, fields: Fields) -> None:
        """Begin, or say something in between."""
        self.heads.append(fields)
        self._link.put(self)

    def data(self, data: memoryview | bytes) -> None:
        """Go on. What is in a buffer of somebody else's is copied."""
        self.pieces.append(bytes(data))
        self.size += len(data)
        self._link.held += len(data)
        if not self.full and (self.size > HIGH or (self._link.held > MOST_HELD and self.size > LOW)):
            self.full = True
            self.moved = time.monotonic()
            self._owner.sending_full()
        self._link.put(self)

    def end(self, trailers: Fields) -> None:
        """That was all."""
        self.ended, self.trailers = True, trailers
        self._link.put(self)

    def drop(self) -> None:
        """Send nothing more."""
        self._link.held -= self.size
        self.size = 0
        self.heads.clear()
        self.pieces.clear()
        self._link.forget(self)

    def step(self, connection: H2Connection) -> int | None:
        """Send what goes into one frame of DATA, and what stands around it.

        Returns bytes of DATA; None: there is no window for them. Raises `ProtocolError`: the stream is gone.
        """
        while self.heads:
            fields = self.heads.popleft()
            last = self.ended and not (self.heads or self.pieces or self.trailers)
            connection.send_headers(self.number, header_fields(fields), end_stream=last)
            if last:
                self._over()
                return 0
        size = 0
        if self.pieces:
            window = connection.local_flow_control_window(self.number)
            size = min(window, connection.max_outbound_frame_size, len(self.pieces[0]))
            if size <= 0:
                return None
            piece = self.pieces.popleft()
            if size < len(piece):
                self.pieces.appendleft(piece[size:])
                piece = piece[:size]
            last = self.ended and not (self.pieces or self.trailers)
            connection.send_data(self.number, piece, end_stream=last)
            self._sent(size)
            if last:
                self._over()
                return size
        if self.ended and not self.pieces:
            if self.trailers:
                connection.send_headers(self.number, header_fields(self.trailers), end_stream=True)
            else:
                connection.end_stream(self.number)
            self._over()
        return size

    def _sent(self, size: int) -> None:
        self.moved = time.monotonic()
        self.size -= size
        self._link.held -= size
        if self.full and self.size <= LOW:
            self.full = False
            self._owner.sending_ready()

    def _over(self) -> None:
        self.ended = False
        self._owner.sending_over()

    @property
    def waits(self) -> bool:
        """Whether there is anything to send."""
        return bool(self.heads or self.pieces or self.ended)


class Link(asyncio.Protocol):
    """One end of a connection."""

    transport: asyncio.Transport

    def __init__(self, connection: H2Connection, frames: Frames) -> None:
        self.h2 = connection
        self.frames = frames
        self.held = 0
        """Bytes that wait to be sent on all streams."""
        self.over = False
        """Nothing more is said."""
        self.heard = time.monotonic()
        """When anything came last."""
        self._handlers: dict[type[Event], Callable[[Event], None]] = {}
        self._ready: dict[Outgoing, None] = {}
        self._blocked: dict[Outgoing, None] = {}
        """Those without a window."""
        self._full = False
        self._scheduled = False
        self._unsent = (0, self.heard)
        """Bytes that wait to be written, and since when it is so many."""
        self.handle(WindowUpdated, self._window)
        self.handle(RemoteSettingsChanged, self._settings)

    def handle[E: Event](self, kind: type[E], handler: Callable[[E], None]) -> None:
        """Have events of a kind heard."""
        self._handlers[kind] = cast(Callable[[Event], None], handler)

    # ---- for streams

    def put(self, outgoing: Outgoing) -> None:
        """Send of it when there is room."""
        if outgoing not in self._blocked:
            self._ready[outgoing] = None
            self.flush_soon()

    def forget(self, outgoing: Outgoing) -> None:
        """Send nothing more of it."""
        self._ready.pop(outgoing, None)
        self._blocked.pop(outgoing, None)

    def taken(self, size: int, number: int) -> None:
        """So many bytes of a stream have gone where they belong: as many may come."""
        if size and not self.over:
            self.h2.acknowledge_received_data(size, number)
            self.flush_soon()

    def reset(self, number: int, code: ErrorCodes) -> None:
        """End a stream at once. One that has ended already stays as it is."""
        if self.over:
            return
        try:
            self.h2.reset_stream(number, code)
        except ProtocolError:
            return
        self.flush_soon()

    def farewell(self, code: ErrorCodes = ErrorCodes.NO_ERROR, last: int = _LARGEST) -> None:
        """Say that no stream above `last` will be looked at. The library could not go on after its own."""
        if not self.over:
            self._flush()
            self.transport.write(GoAwayFrame(0, last_stream_id=last, error_code=int(code)).serialize())

    def linger(self, now: float) -> None:
        """Be gone, also for a peer that does not take what was said last."""
        if now - self.heard > LINGER:
            self.transport.abort()

    def flush_soon(self) -> None:
        """Write what there is to say once this turn of the loop is over: of many streams in one piece."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def stuck(self, now: float, silence: float, head: float) -> bool:
        """Whether the peer takes nothing of what was written, or does not end what it began."""
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent[0]:
            self._unsent = (unsent, now)
        began = self.frames.since
        return (unsent > 0 and now - self._unsent[1] > silence) or (began is not None and now - began > head)

    # ---- for who extends it

    def lost(self) -> None:
        """The connection is gone."""

    def left(self) -> None:
        """The peer has said goodbye; `frames.farewell` is what it said."""

    def flooded(self, detail: str) -> None:
        """The peer is sent away for that."""

    def protest(self, code: ErrorCodes) -> None:
        """End the connection, and say why."""
        if not self.over:
            self.farewell(code, self.h2.highest_inbound_stream_id)
            self._finish()

    def close(self) -> None:
        """End the connection once what was said is written."""
        if not self.over:
            self._flush()
            self._finish()

    # ---- of asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(CONNECTION_WINDOW - self.h2.inbound_flow_control_window)
        self._write()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.over:
            return
        self.heard = time.monotonic()
        before = self.frames.farewell
        try:
            for event in self.h2.receive_data(self.frames.feed(data, self.heard)):
                handler = self._handlers.get(type(event))
                if handler is not None and not self.over:
                    handler(event)
        except Flood as flood:
            self.flooded(str(flood))
            self.protest(ErrorCodes.ENHANCE_YOUR_CALM)
        except Broken as broken:
            self.protest(broken.code)
        except ProtocolError as error:
            # The library has put a GOAWAY to what it has to say.
            log.debug("%s: %s", type(self).__name__, error)
            self._write()
            self._finish()
        self._go_on(before)

    def _go_on(self, before: Farewell | None) -> None:
        if self.over:
            return
        if self.frames.farewell is not before:
            self.left()
        self._flush()
        if self._full and self.transport.get_write_buffer_size() > HIGH_WATER + MOST_UNSENT:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.over = True
        self.lost()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._full = True

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._full = False
        self._flush()

    # ---- within

    def _finish(self) -> None:
        self.over = True
        self.heard = time.monotonic()
        self.transport.close()

    def _window(self, event: WindowUpdated) -> None:
        if not event.stream_id:
            self._unblock()
            return
        for outgoing in self._blocked:
            if outgoing.number == event.stream_id:
                del self._blocked[outgoing]
                self._ready[outgoing] = None
                return

    def _settings(self, event: RemoteSettingsChanged) -> None:
        # What a peer remembers for us is remembered here, too.
        self.h2.encoder.header_table_size = min(self.h2.encoder.header_table_size, MAX_TABLE)
        self._unblock()

    def _unblock(self) -> None:
        self._ready.update(self._blocked)
        self._blocked.clear()

    def _flush(self) -> None:
        """Send in turns: a frame for each stream."""
        self._scheduled = False
        if self.over:
            return
        batch = 0
        while self._ready and not self._full:
            outgoing = next(iter(self._ready))
            del self._ready[outgoing]
            try:
                size = outgoing.step(self.h2)
            except ProtocolError as error:
                # The peer has reset the stream: its event says so, or has.
                log.debug("stream %d: %s", outgoing.number, error)
                outgoing.drop()
                continue
            if size is None:
                self._blocked[outgoing] = None
                continue
            self.frames.updates.earn(1 + size // 1024)
            if outgoing.waits:
                self._ready[outgoing] = None
            batch += size
            if batch >= _BATCH:
                self._write()
                batch = 0
        self._write()

    def _write(self) -> None:
        data = self.h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)


def header_fields(fields: Fields) -> list[tuple[bytes, bytes]]:
    """As the library wants them: what its size could give away is not compressed (RFC 7541 section 7.1.3)."""
    return [
        NeverIndexedHeaderTuple(name.encode("latin-1"), value.encode("latin-1"))
        if name == "authorization" or (name == "cookie" and len(value) < _SHORT)
        else (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in fields
    ]


class _Connection(H2Connection):
    MAX_CLOSED_STREAMS = 1024
    """What it remembers of streams that have ended, or a connection would grow with every request."""


def speak(*, client: bool, settings: Mapping[SettingCodes, int]) -> H2Connection:
    """A connection of the library's. Heads are checked and written by `pseudofields`, and not by it."""
    connection = _Connection(
        H2Configuration(
            client_side=client,
            header_encoding=None,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    connection.local_settings = Settings(client=client, initial_values=dict(settings))
    return connection
