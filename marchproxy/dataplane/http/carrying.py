"""What follows a switch of protocols: both sides say what they like, and it is carried as it is."""

import asyncio
from abc import ABC, abstractmethod

from marchproxy.dataplane.http.exchange import Exchange
from marchproxy.dataplane.http.messages import Fields, Response
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.upstream import Upstream
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.model.reason import Reason

FLUSH = 5.0
"""Seconds for a side to take what was written when the other has ended."""


class Carrying(ABC):
    """Carries bytes between a client and a backend, in this process; an `Asking`."""

    def __init__(
        self, site: Site, exchange: Exchange, conversation: Conversation, upstream: Upstream
    ) -> None:
        self.conversation = conversation
        self.exchange = exchange
        self.upstream = upstream
        self.ended = False
        self._site = site

    @abstractmethod
    def give(self, data: memoryview | bytes) -> None:
        """Have the client get what the backend says."""

    @abstractmethod
    def close(self) -> None:
        """End the client's side: what was given is still sent."""

    @abstractmethod
    def upstream_full(self) -> None:
        """See `Asking`."""

    @abstractmethod
    def upstream_ready(self) -> None:
        """See `Asking`."""

    def send(self, data: memoryview | bytes) -> None:
        """Carry what the client says."""
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
        close_soon(self.upstream.transport)
        self.close()

    def informed(self, response: Response) -> None:  # noqa: B027  (there is nothing to do)
        """There are no more answers."""

    def answered(self, response: Response) -> None:  # noqa: B027  (there is nothing to do)
        """The same."""

    def received(self, data: memoryview | bytes) -> None:
        """See `Asking`."""
        self.conversation.carry(self.conversation.received, len(data))
        self.give(data)

    def flush(self) -> None:  # noqa: B027  (there is nothing to do)
        """Nothing is held back."""

    def complete(self, trailers: Fields) -> None:
        """See `Asking`."""
        self.end()

    def failed(self, reason: Reason, detail: str) -> None:
        """See `Asking`."""
        self.end(reason)


def close_soon(transport: asyncio.Transport) -> None:
    """Close it; who takes nothing of what was written shall not keep the connection for ever."""
    transport.close()
    asyncio.get_running_loop().call_later(FLUSH, transport.abort)
