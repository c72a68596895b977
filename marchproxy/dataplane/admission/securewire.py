"""A client's connection under TLS while it is talked to, as `wire` is one in the clear."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from marchproxy.dataplane.admission.wire import LINGER, Wire
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.dataplane.proxy.protocol.alerts import Alert, fatal
from marchproxy.dataplane.proxy.protocol.exchange import Bound, Unfit
from marchproxy.dataplane.proxy.protocol.secured import Secured
from marchproxy.dataplane.proxy.relay import Relay
from marchproxy.dataplane.proxy.securerelay import SecureRelay
from marchproxy.model.reason import Reason

_DISAGREED = frozenset(
    {
        *("UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "NO_SHARED_CIPHER", "NO_SUITABLE_KEY_SHARE"),
        *("NO_SUITABLE_SIGNATURE_ALGORITHM", "NO_SHARED_SIGNATURE_ALGORITHMS", "NO_SUITABLE_GROUPS"),
        *("INAPPROPRIATE_FALLBACK", "NO_PROTOCOLS_AVAILABLE"),
    }
)
"""What OpenSSL calls it where both speak TLS, and not the same."""
PLAIN_HTTP = frozenset({"HTTP_REQUEST", "HTTPS_PROXY_REQUEST"})


class NotAgreed(Unfit):
    """The handshake failed."""

    def __init__(self, reason: Reason, detail: str, *, plain_http: bool = False) -> None:
        super().__init__(reason, detail)
        self.plain_http = plain_http
        """The client speaks HTTP in the clear."""


class SecureWire(Wire):
    """One connected, non-blocking socket that speaks TLS."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(sock)
        self._context = context
        self._secured: Secured
        """From the first bytes on: who says nothing shall cost no more than in the clear."""
        self._agreed = False
        self._opened = b""
        """What was opened and not yet received."""

    async def handshake(self, until: float, sending: float) -> None:
        """Agree on TLS before the loop's clock comes to `until`. Raises `NotAgreed`, with CLOSED where the
        client left without a word, and `OSError`. `sending`: seconds for the client to take what it is told.
        """
        heard = told = done = False
        while not done:
            try:
                data = await self._take(until)
            except ConnectionError:
                data = b""
            if data is None:
                raise NotAgreed(Reason.TOO_SLOW, "TLS was not agreed on in time")
            if not data:
                # Who has seen our certificate and says nothing more does not want it.
                reason = Reason.TLS_FAILED if told else Reason.MALFORMED if heard else Reason.CLOSED
                raise NotAgreed(reason, "the connection was ended in the middle of a handshake")
            if not heard:
                heard, self._secured = True, Secured(self._context)
            try:
                done = self._secured.shake(data)
            except ssl.SSLError as error:
                failed = _not_agreed(error)
                # OpenSSL says nothing to who does not speak TLS; a client that is ours knows this.
                alert = self._secured.unsent() or fatal(Alert.DECODE_ERROR)
                if not failed.plain_http:
                    with suppress(OSError):
                        await self.tell(alert, sending)
                raise failed from None
            said = self._secured.unsent()
            told = told or bool(said)
            await self.tell(said, sending)
            if not done and not await self._others_first(until):
                raise NotAgreed(Reason.TOO_SLOW, "TLS was not agreed on in time")
        self._agreed = True
        # What came with the last of it.
        self._opened = bytes(self._secured.open(b""))

    async def tell(self, data: bytes, within: float) -> None:
        """Send as it is, while TLS is not agreed on. Raises as `send`."""
        await super().send(data, within)

    async def receive(self, until: float | None) -> bytes | None:
        """See `Wire`. A FIN without close_notify before is an `OSError`: who knows what is missing."""
        if await self._fill(until):
            data, self._opened = self._opened, b""
            return data
        return None

    async def peek(self, until: float) -> bytes:
        """See `Wire`."""
        await self._fill(until)
        return self._opened

    async def send(self, data: bytes, within: float) -> None:
        """See `Wire`."""
        await super().send(self._secured.seal(data), within)

    async def close(self) -> None:
        """See `Wire`; TLS is ended before."""
        if self._agreed:
            with suppress(OSError):
                await super().send(self._secured.close(), LINGER)
        await super().close()

    def relay(
        self,
        upstream: socket.socket,
        conversation: Conversation,
        on_end: Callable[[Reason], None],
        bound: Bound | None,
    ) -> Relay:
        """See `Wire`."""
        opened, self._opened = self._opened, b""
        return SecureRelay(self.socket, self._secured, upstream, conversation, on_end, bound, opened)

    async def _fill(self, until: float | None) -> bool:
        """Whether there is something to receive, or the end, before `until`."""
        while not self._opened:
            if self._secured.ended:
                break
            data = await self._take(until)
            if data is None:
                return False
            if not data:
                raise ConnectionResetError("TLS was not ended")
            self._opened = bytes(self._secured.open(data))
            if not self._opened and not await self._others_first(until):
                return False
        return True

    async def _others_first(self, until: float | None) -> bool:
        """Whether there is time left. Records that open to nothing, such as key updates, may come for ever:
        each piece of them waits for its turn.
        """
        await asyncio.sleep(0)
        return until is None or self._loop.time() < until


def _not_agreed(error: ssl.SSLError) -> NotAgreed:
    what = error.reason or "TLS failed"
    told = what.lower().replace("_", " ")
    if what in _DISAGREED or "ALERT" in what:
        return NotAgreed(Reason.TLS_FAILED, told)
    return NotAgreed(Reason.MALFORMED, told, plain_http=what in PLAIN_HTTP)
