"""WebSockets on a stream of HTTP/2 (RFC 8441) or HTTP/3 (RFC 9220), towards a backend asked by HTTP/1.1.

What both sides say is copied: a stream is no connection that the kernel could take over.
"""

import asyncio
import base64
import hashlib
from typing import Protocol

from marchproxy.dataplane.http.exchange import Exchange
from marchproxy.dataplane.http.messages import Fields, Request, Response
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.upstream import Upstream
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.model.reason import Reason

_FLUSH = 5.0
"""Seconds for the backend to take what was written when the client has ended."""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""Of RFC 6455 section 1.3."""


def accepts(request: Request, response: Response) -> bool:
    """Whether a backend that switches has understood the handshake: the key was ours, nobody else looks."""
    key = next((value for name, value in request.fields if name == "sec-websocket-key"), "")
    # What RFC 6455 section 4.2.2 prescribes; it protects nothing.
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    said = next((value for name, value in response.fields if name == "sec-websocket-accept"), "")
    return said == base64.b64encode(digest).decode()


def accepted(response: Response) -> Response:
    """The same for a client of HTTP/2 or HTTP/3."""
    fields = tuple([each for each in response.fields if each[0] != "sec-websocket-accept"])
    return Response(200, "", fields, None)


class Carried(Protocol):
    """The client's stream."""

    def carry(self, data: memoryview | bytes) -> None:
        """Send what the backend says."""

    def carried(self) -> None:
        """The backend says nothing more."""

    def pause(self) -> None:
        """Give on nothing more of what comes."""

    def resume(self) -> None:
        """Give on what has come."""


class Carrying:
    """Carries bytes between a stream and a backend."""

    def __init__(
        self,
        site: Site,
        stream: Carried,
        exchange: Exchange,
        conversation: Conversation,
        upstream: Upstream,
    ) -> None:
        self.conversation = conversation
        self.exchange = exchange
        self.upstream = upstream
        self.ended = False
        self._site = site
        self._stream = stream

    # ---- from the client

    def send(self, data: bytes) -> None:
        """Carry what it says."""
        self.conversation.carry(self.conversation.sent, len(data))
        self.upstream.transport.write(data)

    def end(self, reason: Reason = Reason.CLOSED) -> None:
        """End both sides: what was written is still sent."""
        if self.ended:
            return
        self.ended = True
        self._site.ledger.ended(self.conversation, reason)
        if self._site.tells:
            self.exchange.tell()
        transport = self.upstream.transport
        transport.close()
        asyncio.get_running_loop().call_later(_FLUSH, transport.abort)
        self._stream.carried()

    # ---- from the backend

    def informed(self, response: Response) -> None:
        """There are no more answers."""

    def answered(self, response: Response) -> None:
        """The same."""

    def received(self, data: memoryview | bytes) -> None:
        """See `Asking`."""
        self.conversation.carry(self.conversation.received, len(data))
        self._stream.carry(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def complete(self, trailers: Fields) -> None:
        """See `Asking`."""
        self.end()

    def failed(self, reason: Reason, detail: str) -> None:
        """See `Asking`."""
        self.end(reason)

    def upstream_full(self) -> None:
        """See `Asking`."""
        self._stream.pause()

    def upstream_ready(self) -> None:
        """See `Asking`."""
        self._stream.resume()
