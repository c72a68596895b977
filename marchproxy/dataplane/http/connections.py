"""Connections of clients, whatever version of HTTP they speak, as the listeners see them."""

import asyncio
from collections.abc import Iterator
from typing import Protocol

from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.model.reason import Reason


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
