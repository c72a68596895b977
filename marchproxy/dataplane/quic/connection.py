"""One connection: an engine between a socket and an application, with its timer."""

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from aioquic.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    HandshakeCompleted,
    QuicEvent,
)

from marchproxy.dataplane.proxy.udp import SocketAddress
from marchproxy.dataplane.quic.engine import Engine
from marchproxy.model.address import IPAddress

log = logging.getLogger(__name__)


class Path(NamedTuple):
    """Between whom datagrams go; a connection may change it."""

    client: SocketAddress
    local: IPAddress


type Datagrams = Sequence[tuple[bytes, Path]]


class Application(Protocol):
    """What speaks over a connection."""

    def begun(self) -> None:
        """The handshake is complete, and the client's address shown."""

    def hastened(self) -> None:
        """The client speaks before that, which may have been recorded (0-RTT); `begun` follows."""

    def happened(self, event: QuicEvent) -> None:
        """Something has come on a stream."""

    def progressed(self) -> None:
        """The client may have more of what was written by now."""

    def moved(self, path: Path) -> None:
        """The client has shown that it is somewhere else."""

    def gone(self) -> None:
        """It is over."""


class Carrier(Protocol):
    """What sends for a connection, and brings it what comes."""

    def send(self, datagrams: Datagrams) -> None:
        """Send them, or lose some."""

    def know(self, connection_id: bytes, connection: "Connection") -> None:
        """Bring what comes to this ID."""

    def forget_id(self, connection_id: bytes) -> None:
        """No longer."""

    def complete(self, connection: "Connection") -> None:
        """Its handshake is complete."""

    def forget(self, connection: "Connection") -> None:
        """There is nothing left of it."""


class Connection:
    """The connection."""

    def __init__(self, engine: Engine, carrier: Carrier, path: Path, now: float) -> None:
        self.engine = engine
        self.path = path
        """Where the client is, as far as it has shown that; before the handshake, where it says it is."""
        self.application: Application
        self.began = now
        self.complete = False
        self.early = False
        """The client speaks already, and may."""
        self.ids: set[bytes] = set()
        self._carrier = carrier
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._due_at = 0.0
        self._soon: asyncio.Handle | None = None
        self._told = False
        """The application knows that it is over."""

    def receive(self, data: bytes, path: Path, now: float) -> None:
        """A datagram has come; `flush` must follow."""
        try:
            self.engine.receive_datagram(data, path, now)
            self._hear()
        except Exception as error:
            # Whatever a stranger has found in the library is the end of his connection and nobody else's.
            log.error("QUIC from %s: %s: %s", path.client[0], type(error).__name__, error)
            log.debug("QUIC from %s", path.client[0], exc_info=error)
            self.abandon()

    def flush(self) -> None:
        """Send what there is to send by now."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        now = self._loop.time()
        if self.engine.unheard:
            return
        datagrams = self.engine.datagrams_to_send(now)
        if datagrams:
            self._carrier.send(datagrams)
        if self.engine.closing:
            self._tell()
        self._arm(self.engine.get_timer())

    def flush_soon(self) -> None:
        """The same, once everything has been said that is said in this turn of the loop."""
        if self._soon is None:
            self._soon = self._loop.call_soon(self.flush)

    def close(self, code: int, reason: str = "", *, transport: bool = False) -> None:
        """End it. `code` is of the application, or of `transport` (RFC 9000 section 20)."""
        self.engine.close(error_code=code, frame_type=0 if transport else None, reason_phrase=reason)
        self.flush_soon()

    def abandon(self) -> None:
        """Forget it without a word."""
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        self._timer = self._soon = None
        self._tell()
        self._carrier.forget(self)

    def _hear(self) -> None:
        while (event := self.engine.next_event()) is not None:
            match event:
                case ConnectionIdIssued(connection_id):
                    self._carrier.know(connection_id, self)
                case ConnectionIdRetired(connection_id):
                    self._carrier.forget_id(connection_id)
                case HandshakeCompleted():
                    self.complete, self.early = True, False
                    self._carrier.complete(self)
                    self._look_around()
                    self.application.begun()
                case ConnectionTerminated():
                    self.abandon()
                    return
                case _ if self._heeds() and not self._told:
                    self.application.happened(event)
        if self._heeds() and not self._told:
            if self.complete and self._look_around():
                self.application.moved(self.path)
            self.application.progressed()

    def _heeds(self) -> bool:
        """Whether what comes is for the application, which hears before if it comes early."""
        if not (self.complete or self.early) and self.engine.early and not self._told:
            # All that comes on streams until the handshake is complete does.
            self.early = True
            self.application.hastened()
        return self.complete or self.early

    def _look_around(self) -> bool:
        shown = self.engine.shown
        if not isinstance(shown, Path) or shown == self.path:
            return False
        self.path = shown
        return True

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self.application.gone()

    def _arm(self, at: float | None) -> None:
        """A timer that goes off too early is set again, which costs less than moving it with each packet."""
        if at is None:
            return
        if self._timer is not None:
            if self._due_at <= at:
                return
            self._timer.cancel()
        self._due_at = at
        self._timer = self._loop.call_at(at, self._due)

    def _due(self) -> None:
        self._timer = None
        now, at = self._loop.time(), self.engine.get_timer()
        if at is None:
            return
        if now < at:
            self._arm(at)
            return
        self.engine.handle_timer(max(now, at))
        self._hear()
        if not self._told or self.engine.closing:
            self.flush()
