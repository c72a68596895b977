"""One client and the protocol layer that talks to it, until it is let in or sent away."""

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from marchproxy.dataplane.admission.wire import Wire
from marchproxy.dataplane.proxy.protocol.exchange import (
    Ask,
    Bound,
    Close,
    Elapsed,
    Ended,
    Event,
    Layer,
    Opened,
    Received,
    Refused,
    Relay,
    Request,
    Send,
    Started,
    WakeAt,
)


class Opening(Protocol):
    """A connection that stands, and waits for the client to be told."""

    @property
    def opened(self) -> Opened:
        """The appliance's own end of it."""

    def relay(self, ahead: bytes, bound: Bound | None) -> None:
        """Begin to carry bytes; the client's socket is no longer the session's."""

    def abandon(self) -> None:
        """The client is gone, or its layer thinks otherwise."""


type Decide = Callable[[Request], Awaitable[Opening | Refused]]


class Session:
    """Carries a layer's commands out."""

    def __init__(self, wire: Wire, layer: Layer, decide: Decide, sending: float, ahead: bytes = b"") -> None:
        """`sending`: seconds for the client to take what it is told. `ahead` was read from it already."""
        self.asked = False
        """Whether it has come to a request."""
        self._wire = wire
        self._layer = layer
        self._decide = decide
        self._sending = sending
        self._ahead = ahead
        self._wake: float | None = None
        self._opening: Opening | None = None

    async def run(self) -> Close | None:
        """Talk until the connection is relayed (None) or over: why, as the layer says. Raises `OSError`."""
        event: Event = Started()
        try:
            while True:
                asked = None
                for command in self._layer.handle(event, time.monotonic()):
                    match command:
                        case WakeAt(instant):
                            self._wake = instant
                        case Send(data):
                            await self._wire.send(data, self._sending)
                        case Ask(request):
                            asked = request
                        case Relay(ahead, bound):
                            self._relay(ahead, bound)
                            return None
                        case Close():
                            return command
                event = await (self._ask(asked) if asked else self._listen())
        finally:
            if self._opening is not None:
                self._opening.abandon()

    async def _listen(self) -> Event:
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return Received(ahead)
        data = await self._wire.receive(self._wake)
        if data is None:
            return Elapsed()
        return Received(data) if data else Ended()

    async def _ask(self, request: Request) -> Event:
        self.asked = True
        answer = await self._decide(request)
        if isinstance(answer, Refused):
            return answer
        self._opening = answer
        return answer.opened

    def _relay(self, ahead: bytes, bound: Bound | None) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.relay(ahead, bound)
