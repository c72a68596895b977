"""TLS between a client's connection and what speaks HTTP over it, whose version ALPN says (RFC 7301).

A handshake takes half as much of Python as with the event loop's own TLS, which waits for it in a task, has a
timer for it and another for its end, and is told five times by an exception that nothing came.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from marchproxy.dataplane.proxy.protocol.secured import MAX_PIECE, MAX_UNSENT, RECORD, Secured
from marchproxy.model.reason import Reason

type Choose = Callable[[ssl.SSLObject], asyncio.Protocol]
"""What speaks the protocol that was agreed on."""
type Unagreed = Callable[[Reason | None, str], None]
"""The connection is gone, and nothing was agreed on; why, and in OpenSSL's words. None: the client left."""


class Securing(asyncio.Protocol, asyncio.Transport):
    """To the connection a protocol, and a transport to who speaks over it.

    Who waits for its end must see to it (`abort`): after `close` the client may take its time to say that it
    has ended as well.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        until: float,
        shaking: "set[Securing]",
        choose: Choose,
        failed: Unagreed,
    ) -> None:
        """It is in `shaking` until TLS is agreed on, which has time `until` then (of the monotonic clock)."""
        self._secured = Secured(context)
        self._until = until
        self._shaking = shaking
        self._choose = choose
        self._failed = failed
        self._plain: asyncio.Transport
        self._app: asyncio.Protocol | None = None
        self._why: Reason | None = None
        self._detail = ""
        self._closing = False

    def tick(self, now: float) -> None:
        """See to who takes too long to agree; called about once a second."""
        if now > self._until:
            self._why = self._why or Reason.TOO_SLOW
            self._plain.abort()

    # ---- of asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._plain = cast(asyncio.Transport, transport)
        self._shaking.add(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if len(data) <= MAX_PIECE:
            self._receive(data)
            return
        for begin in range(0, len(data), MAX_PIECE):
            self._receive(data[begin : begin + MAX_PIECE])

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`. What was not ended by TLS was cut off: nobody is told of an end."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._closing = True
        # Each has the other, and memory of OpenSSL's would wait for the collector.
        app, self._app = self._app, None
        if app is not None:
            app.connection_lost(exc)
        else:
            self._shaking.discard(self)
            self._failed(self._why, self._detail)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._app is not None:
            self._app.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._app is not None:
            self._app.resume_writing()

    # ---- of asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See `asyncio.Transport`."""
        if data and not self._closing:
            self._plain.write(self._secured.seal(data))

    def close(self) -> None:
        """See `asyncio.Transport`: close_notify goes behind what was written, and what comes is not heard."""
        if self._closing:
            return
        self._closing = True
        self._plain.write(self._secured.close())
        if self._secured.ended:
            self._plain.close()
        else:
            self._plain.resume_reading()

    def abort(self) -> None:
        """See `asyncio.Transport`."""
        self._closing = True
        self._plain.abort()

    def is_closing(self) -> bool:
        """See `asyncio.Transport`."""
        return self._closing or self._plain.is_closing()

    def can_write_eof(self) -> bool:
        """See `asyncio.Transport`: both directions end by `close`."""
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See `asyncio.Transport`."""
        self._plain.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """See `asyncio.Transport`."""
        return self._plain.get_write_buffer_size()

    def pause_reading(self) -> None:
        """See `asyncio.Transport`; what has come already still follows."""
        self._plain.pause_reading()

    def resume_reading(self) -> None:
        """See `asyncio.Transport`."""
        self._plain.resume_reading()

    # ---- within

    def _receive(self, data: bytes) -> None:
        """One piece of what came."""
        if self._plain.is_closing():
            return
        secured = self._secured
        try:
            behind = data if secured.established else self._shake(data)
            if behind is None:
                return
            # Before anybody may close: OpenSSL takes what was not opened by then for an error.
            opened = bytes(secured.open(behind))
        except OSError as error:
            self._break(error)
            return
        app = self._app
        if app is None:
            self._shaking.discard(self)
            app = self._app = self._choose(secured.tls)
            app.connection_made(self)
        if opened and not self._closing:
            app.data_received(opened)
        if secured.ended:
            self._end()
        else:
            self._answer()

    def _shake(self, data: bytes) -> memoryview | None:
        """Go on with the handshake; what came behind it once it is over. Raises `ssl.SSLError`."""
        rest, agreed = memoryview(data), False
        while rest and not agreed:
            agreed = self._secured.shake(rest[:RECORD])
            rest = rest[RECORD:]
        self._answer()
        return rest if agreed else None

    def _answer(self) -> None:
        """Send what TLS itself has to say; who wants more and more of that, and reads none, is cut off."""
        unsent = self._secured.unsent()
        if unsent:
            self._plain.write(unsent)
            if self._plain.get_write_buffer_size() > self._plain.get_write_buffer_limits()[1] + MAX_UNSENT:
                self.abort()

    def _break(self, error: OSError) -> None:
        """TLS cannot go on; OpenSSL tells the client why."""
        self._why, self._detail = Reason.TLS_FAILED, str(error)
        self._closing = True
        self._plain.write(self._secured.unsent())
        self._plain.close()

    def _end(self) -> None:
        """The client sends no more, and does not receive either."""
        if not self._closing and self._app is not None:
            self._app.eof_received()
        self.close()
        self._plain.close()
