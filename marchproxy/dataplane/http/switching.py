"""WebSockets (RFC 6455): after the handshake both sides carry bytes that are not ours to read.

Where both are plain TCP, the connections become a tunnel, which the kernel may take over later (ARCHITECTURE,
"Handoff"). Under TLS on either side they are copied here, with the back-pressure of a body.
"""

import asyncio
import logging
import os
import socket

from marchproxy.dataplane.admission.tunnels import Tunnel, Tunnels
from marchproxy.dataplane.admission.wire import Wire
from marchproxy.dataplane.http.carrying import FLUSH, Carrying, close_soon
from marchproxy.dataplane.http.client import ClientConnection
from marchproxy.dataplane.http.exchange import Exchange
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.upstream import Upstream
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.model.reason import Reason

log = logging.getLogger(__name__)

_LOOK = 0.005


class Switching:
    """Has exchanges become something else."""

    def __init__(self, site: Site, tunnels: Tunnels) -> None:
        self._site = site
        self._tunnels = tunnels

    def begin(
        self,
        client: ClientConnection,
        exchange: Exchange,
        conversation: Conversation,
        upstream: Upstream,
        ahead: bytes,
    ) -> "Copying":
        """Go on after 101 was sent; `ahead` came from the client already."""
        copying = Copying(self._site, client, exchange, upstream, conversation)
        upstream.take_over(copying)
        if ahead:
            copying.send(ahead)
        if client.secure or upstream.secure:
            self._site.ledger.opened(conversation, upstream.backend)
        else:
            client.transport.pause_reading()
            upstream.transport.pause_reading()
            name = f"request {exchange.id}: join {exchange.request.host}"
            self._site.tasks.start(self._join(copying), name=name, flow=conversation.number)
        return copying

    async def _join(self, copying: "Copying") -> None:
        """Make a tunnel of both connections once nothing waits to be written to either."""
        client, upstream = copying.client.transport, copying.upstream.transport
        until = asyncio.get_running_loop().time() + FLUSH
        while client.get_write_buffer_size() or upstream.get_write_buffer_size():
            if asyncio.get_running_loop().time() > until or copying.ended:
                copying.end()
                return
            await asyncio.sleep(_LOOK)
        if copying.ended or client.is_closing() or upstream.is_closing():
            copying.end()
            return
        exchange, backend = copying.exchange, copying.upstream.backend
        try:
            ours, theirs = _copies(client, upstream)
        except OSError as error:
            about = {"flow": copying.conversation.number}
            text = "request %s: a WebSocket of %s is ended: %s"
            log.warning(text, exchange.id, exchange.request.host, error.strerror, extra=about)
            copying.end(Reason.RESET)
            return
        conversation = copying.release()
        client.abort()
        upstream.abort()
        tunnel = Tunnel(conversation, exchange.verified, None, None, exchange.presented)
        self._tunnels.open(
            tunnel, Wire(ours), theirs, backend, ahead=b"", bound=None, on_end=copying.client.let_go()
        )


class Copying(Carrying):
    """Carries bytes between both connections."""

    def __init__(
        self,
        site: Site,
        client: ClientConnection,
        exchange: Exchange,
        upstream: Upstream,
        conversation: Conversation,
    ) -> None:
        super().__init__(site, exchange, conversation, upstream)
        self.client = client

    # ---- from the client

    def client_ended(self) -> None:
        """See `Switched`."""
        self.end()

    def client_full(self) -> None:
        """See `Switched`."""
        self.upstream.transport.pause_reading()

    def client_ready(self) -> None:
        """See `Switched`."""
        self.upstream.transport.resume_reading()

    # ---- from the backend

    def give(self, data: memoryview | bytes) -> None:
        """See `Carrying`."""
        self.client.transport.write(data)

    def close(self) -> None:
        """See `Carrying`."""
        close_soon(self.client.transport)

    def upstream_full(self) -> None:
        """See `Asking`."""
        self.client.transport.pause_reading()

    def upstream_ready(self) -> None:
        """See `Asking`."""
        self.client.transport.resume_reading()

    # ---- to become a tunnel

    def release(self) -> Conversation:
        """The conversation, which from here on is somebody else's; so are both connections."""
        self.ended = True
        if self._site.tells:
            self.exchange.tell()
        return self.conversation


def _copies(client: asyncio.Transport, upstream: asyncio.Transport) -> tuple[socket.socket, socket.socket]:
    """Both connections, which outlive their transports by a copy of the descriptor. Raises `OSError`."""
    ours = _copy(client)
    try:
        return ours, _copy(upstream)
    except OSError:
        ours.close()
        raise


def _copy(transport: asyncio.Transport) -> socket.socket:
    copy = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    copy.setblocking(False)
    return copy
