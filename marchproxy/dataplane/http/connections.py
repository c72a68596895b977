"""Connections of clients, whatever version of HTTP they speak, as the listeners and exchanges see them."""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from marchproxy.dataplane.credentials.clientcerts import Shown
from marchproxy.dataplane.http.messages import Fields, Request, Response
from marchproxy.dataplane.http.upstream import Upstream
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.dataplane.http.way import Ways
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Answer

if TYPE_CHECKING:
    from marchproxy.dataplane.http.exchange import Exchange


class Carried(Protocol):
    """What one is to whoever has them all, over TCP or not."""

    @property
    def conversations(self) -> tuple[Conversation, ...]:
        """What its requests count for."""

    def revoke(self, token: str) -> int:
        """End what a credential has opened, and is still under way. Returns how much."""

    def end(self, reason: Reason = Reason.RESET) -> None:
        """End at once; `reason` is that of what it has become by a switch of protocols."""


class Connection(Carried, Protocol):
    """One over TCP."""

    transport: asyncio.Transport

    @property
    def visitor(self) -> Visitor:
        """Who it is, by the plan in force."""

    def recheck(self) -> None:
        """End what the plan in force no longer allows."""

    def tick(self, now: float) -> None:
        """See to what takes too long; called about once a second."""

    def drain(self) -> None:
        """Let what is under way be the last."""


class Having[C: Carried]:
    """Whoever has all connections of a kind."""

    live: set[C]

    @property
    def conversations(self) -> Iterator[Conversation]:
        """What goes on."""
        return (each for connection in self.live for each in connection.conversations)

    def cut(self, ids: frozenset[int]) -> set[int]:
        """End the connections of these conversations. Returns those that there were."""
        found: set[int] = set()
        for connection in tuple(self.live):
            own = {each.number for each in connection.conversations} & ids
            if own:
                found |= own
                connection.end(Reason.CUT)
        return found

    def revoke(self, token: str) -> int:
        """End what a credential has opened, and is still under way. Returns how much."""
        return sum(connection.revoke(token) for connection in tuple(self.live))


class Owner(Protocol):
    """Who has accepted connections."""

    def begun(self, connection: Connection) -> None:
        """One has its transport."""

    def gone(self, connection: Connection) -> None:
        """One has ended, or become something else."""

    def leave(self, connection: Connection) -> None:
        """Its client is gone, whatever the connection had become."""


class Stream(Protocol):
    """The client's side of an exchange."""

    secure: bool
    """It came under TLS."""

    shown: Shown
    """What its connection has shown in TLS."""

    @property
    def ways(self) -> Ways | None:
        """Those of its requests, where others may follow."""

    @property
    def visitor(self) -> Visitor:
        """Who asks, by the plan in force."""

    def conversation(self, answer: Answer, request: Request) -> Conversation:
        """What this client's requests count for that got such an answer."""

    def inform(self, response: Response) -> None:
        """Send an interim answer."""

    def respond(self, response: Response) -> None:
        """Send the head of the answer."""

    def send(self, data: memoryview | bytes) -> None:
        """Send a piece of its body."""

    def flush(self) -> None:
        """Send what was held back to go together with what follows."""

    def finish(self, trailers: Fields) -> None:
        """The answer is complete."""

    def fail(self) -> None:
        """It never will be: the client must notice."""

    def pause(self) -> None:
        """Give no more of the request's body for now."""

    def resume(self) -> None:
        """Give on."""

    def switch(
        self, exchange: "Exchange", conversation: Conversation, response: Response, upstream: Upstream
    ) -> None:
        """The answer is 101: both sides speak something else from here on."""
