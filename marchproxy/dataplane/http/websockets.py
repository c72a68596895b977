"""WebSockets on a stream of HTTP/2 (RFC 8441) or HTTP/3 (RFC 9220), towards a backend asked by HTTP/1.1.

What both sides say is copied: a stream is no connection that the kernel could take over.
"""

import base64
import hashlib
from typing import Protocol

from marchproxy.dataplane.http.answers import refusal
from marchproxy.dataplane.http.carrying import Carrying
from marchproxy.dataplane.http.connections import Stream
from marchproxy.dataplane.http.exchange import Exchange
from marchproxy.dataplane.http.messages import Request, Response
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.upstream import Upstream
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.reason import Reason

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


def misunderstood(site: Site, stream: Stream, conversation: Conversation, upstream: Upstream) -> None:
    """Let go of a backend that does not accept what it switches to, and tell the client."""
    upstream.abandon()
    site.closed(conversation)
    detail = "the backend switched protocols without an answer to the WebSocket's key"
    answer, body = refusal(Unfit(Reason.UPSTREAM_REFUSED, detail))
    stream.respond(answer)
    stream.send(body)
    stream.finish(())


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


class OnStream(Carrying):
    """Carries bytes between a stream and a backend."""

    def __init__(
        self,
        site: Site,
        stream: Carried,
        exchange: Exchange,
        conversation: Conversation,
        upstream: Upstream,
    ) -> None:
        super().__init__(site, exchange, conversation, upstream)
        self._stream = stream

    def give(self, data: memoryview | bytes) -> None:
        """See `Carrying`."""
        self._stream.carry(data)

    def close(self) -> None:
        """See `Carrying`."""
        self._stream.carried()

    def upstream_full(self) -> None:
        """See `Asking`."""
        self._stream.pause()

    def upstream_ready(self) -> None:
        """See `Asking`."""
        self._stream.resume()
