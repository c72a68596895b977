"""What was let in, until it ends: idle, cut, no longer allowed, or with a credential that has expired."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime

from marchproxy.dataplane.admission.judge import Judge
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.dataplane.proxy.protocol.exchange import Bound
from marchproxy.dataplane.proxy.relay import Relay
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Answer
from marchproxy.policy.plan import Backend
from marchproxy.policy.tunnels import Wish

log = logging.getLogger(__name__)


class Tunnel:
    """A client's connection and its upstream."""

    __slots__ = ("conversation", "relay", "verified", "wish")

    def __init__(self, conversation: Conversation, verified: Verified | None, wish: Wish | None) -> None:
        self.conversation = conversation
        self.verified = verified
        self.wish = wish
        """None: it came to a mapping's listener."""
        self.relay: Relay | None = None


class Tunnels:
    """Holds the tunnels that live."""

    def __init__(self, judge: Judge) -> None:
        self.live: set[Tunnel] = set()
        self.empty = asyncio.Event()
        """Set while nothing lives."""
        self.empty.set()
        self._judge = judge
        self._ledger = judge.ledger

    def open(
        self,
        tunnel: Tunnel,
        client: socket.socket,
        upstream: socket.socket,
        backend: Backend,
        *,
        ahead: bytes,
        bound: Bound | None,
        on_end: Callable[[], None],
    ) -> None:
        """Begin to carry, if the plan in force still allows it. `on_end` is called once."""

        def ended(reason: Reason) -> None:
            self.live.discard(tunnel)
            if not self.live:
                self.empty.set()
            self._ledger.ended(tunnel.conversation, reason)
            on_end()

        relay = tunnel.relay = Relay(client, upstream, tunnel.conversation, ended, bound)
        self.live.add(tunnel)
        self.empty.clear()
        self._ledger.opened(tunnel.conversation, backend)
        reason = self._refusal(tunnel)
        if reason is None:
            relay.start(ahead)
        else:
            relay.end(reason)

    def recheck(self) -> None:
        """End what the plan in force no longer allows."""
        for tunnel in tuple(self.live):
            reason = self._refusal(tunnel)
            if reason is not None:
                _end(tunnel, reason)

    def expire(self, idle: float, lifetime: float) -> None:
        """End what has been silent or open for too long, in seconds (0: for ever), or lost its credential."""
        now, instant = time.time(), datetime.now(UTC)
        for tunnel in tuple(self.live):
            conversation = tunnel.conversation
            if idle and conversation.idle() > idle:
                _end(tunnel, Reason.IDLE)
            elif lifetime and now - conversation.started > lifetime:
                _end(tunnel, Reason.LIFETIME)
            elif _has_expired(tunnel, instant):
                _end(tunnel, Reason.AUTH_EXPIRED)

    def cut(self, ids: frozenset[int]) -> set[int]:
        """End the tunnels with these numbers. Returns those that there were."""
        found = [tunnel for tunnel in self.live if tunnel.conversation.number in ids]
        for tunnel in found:
            _end(tunnel, Reason.CUT)
        return {tunnel.conversation.number for tunnel in found}

    def revoke(self, token: str) -> int:
        """End the tunnels that a credential opened, by its number or `jti:…`. Returns how many."""
        found = [tunnel for tunnel in self.live if tunnel.verified and tunnel.verified.token == token]
        for tunnel in found:
            _end(tunnel, Reason.AUTH_REVOKED)
        return len(found)

    def close(self) -> None:
        """End everything."""
        for tunnel in tuple(self.live):
            _end(tunnel, Reason.RESET)

    def _refusal(self, tunnel: Tunnel) -> Reason | None:
        """Why the plan in force does not allow it; None: it does."""
        backend = tunnel.conversation.backend
        if backend and self._ledger.is_blocked(backend):
            return Reason.BLOCKED_DESTINATION
        answer = self._ask_again(tunnel)
        if self._judge.keeps(answer, tunnel.verified):
            return None
        return answer.reason if answer.blocked_by else Reason.POLICY_CHANGED

    def _ask_again(self, tunnel: Tunnel) -> Answer:
        if tunnel.wish is not None:
            return self._judge.tunnel(tunnel.wish)
        return self._ledger.evaluator.evaluate(tunnel.conversation.query)


def _end(tunnel: Tunnel, reason: Reason) -> None:
    if tunnel.relay:
        tunnel.relay.end(reason)


def _has_expired(tunnel: Tunnel, now: datetime) -> bool:
    """Whether the mapping ends it for its credential's sake."""
    rule, verified = tunnel.conversation.answer.rule, tunnel.verified
    if verified is None or verified.expires is None or rule is None or rule.grace is None:
        return False
    return (now - verified.expires).total_seconds() >= rule.grace
