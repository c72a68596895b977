"""The explicit proxy's one port: the first byte tells SOCKS5 from HTTP."""

from marchproxy.dataplane.proxy.protocol.admission import DEADLINE
from marchproxy.dataplane.proxy.protocol.alerts import Alert, fatal
from marchproxy.dataplane.proxy.protocol.exchange import (
    Close,
    Command,
    Elapsed,
    Ended,
    Event,
    Layer,
    Received,
    Send,
    Started,
    WakeAt,
)
from marchproxy.dataplane.proxy.protocol.http import HttpLayer
from marchproxy.dataplane.proxy.protocol.socks5 import VERSION, Socks5Layer
from marchproxy.model.reason import Reason

_SOCKS4 = 0x04
_SOCKS4_REJECTED = b"\x00\x5b" + bytes(6)
_TLS_HANDSHAKE = 0x16


class ExplicitLayer:
    """Becomes the layer that the client speaks."""

    def __init__(self) -> None:
        self._inner: Layer | None = None

    def handle(self, event: Event, now: float) -> list[Command]:
        """Advance. `now` is monotonic, in seconds. The deadline begins anew with the first byte."""
        if self._inner is not None:
            return self._inner.handle(event, now)
        match event:
            case Started():
                return [WakeAt(now + DEADLINE)]
            case Received(data):
                return self._first(data, now)
            case Ended():
                return [Close(Reason.CLOSED)]
            case Elapsed():
                return [Close(Reason.TOO_SLOW, f"said nothing for {DEADLINE:.0f} seconds")]
        return []

    def _first(self, data: bytes, now: float) -> list[Command]:
        first = data[0]
        if first == _SOCKS4:
            close = Close(Reason.UNSUPPORTED, "SOCKS4, which knows neither tokens nor IPv6: use SOCKS5")
            return [Send(_SOCKS4_REJECTED), close]
        if first == _TLS_HANDSHAKE:
            close = Close(Reason.MALFORMED, "TLS, where this proxy is spoken to in the clear")
            return [Send(fatal(Alert.HANDSHAKE_FAILURE)), close]
        self._inner = Socks5Layer() if first == VERSION else HttpLayer()
        return [*self._inner.handle(Started(), now), *self._inner.handle(Received(data), now)]
