"""What was let in, until it ends: idle, cut, no longer allowed, or with a credential that has expired."""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Protocol

from marchproxy.dataplane.admission.deadlines import Deadlines
from marchproxy.dataplane.admission.judge import Judge
from marchproxy.dataplane.admission.wire import Wire
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.kernel.tunnels import Tunnel as Remembered
from marchproxy.dataplane.proxy.ledger import Conversation
from marchproxy.dataplane.proxy.protocol.exchange import Bound
from marchproxy.dataplane.proxy.relay import Relay
from marchproxy.dataplane.records import Flow
from marchproxy.model.address import IPAddress
from marchproxy.model.presented import Presented
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Answer, Evaluator
from marchproxy.policy.plan import Backend
from marchproxy.policy.tunnels import Wish

log = logging.getLogger(__name__)

TRIES = 16
"""To hand one tunnel to the kernel, where what is in the way may pass, before it takes pauses: after so many
bytes, and twice as many each time, and whenever somebody looks (`Tunnels.offer`).
"""
PAUSE = 10.0
"""Seconds after those tries, and twice as long after each that follows."""
LONGEST_PAUSE = 640.0
SETTLE = 1.0
"""Seconds between the moment when queues are made small once more, and the try."""

FEW = 4096
"""Bytes, as `Relay.when_carried` counts them, until a tunnel is prepared for an offer: those that end with a
question and an answer never are.
"""
OFFERED_AT_ONCE = 100
"""Tunnels: each handoff takes some tenths of a millisecond, and others wait meanwhile."""

type Judged = Callable[[Flow, Remembered], Reason | None]
"""Why a tunnel that the kernel has must end; None: it goes on."""


class Offering(Protocol):
    """Takes ripe tunnels."""

    def expect(self, client: socket.socket, upstream: socket.socket) -> None:
        """A tunnel begins that may be offered later."""

    def offer(self, tunnel: "Tunnel", gone: Callable[[], None]) -> None:
        """Hand a tunnel over as soon as it holds nothing. `gone` is called when the kernel has it."""


class Handover(Offering, Protocol):
    """What hands tunnels to the kernel, and knows those that it has."""

    def start(self) -> None:
        """Hand over from now on. The tier has started."""

    async def connect(self, address: IPAddress, port: int, until: float | None) -> socket.socket:
        """A connection that may be handed off. See `connecting.Connect`."""

    def end_where(self, judge: Judged) -> None:
        """End the tunnels in the kernel that `judge` gives a reason against."""

    def revoke(self, token: str) -> int:
        """End the tunnels in the kernel that a credential opened; how many."""

    async def close(self) -> None:
        """Finish what is under way."""


class Tunnel:
    """A client's connection and its upstream."""

    __slots__ = (
        "again",
        "conversation",
        "evaluator",
        "expected",
        "leave",
        "offered",
        "presented",
        "relay",
        "stays",
        "tries",
        "verified",
        "wish",
    )

    def __init__(
        self,
        conversation: Conversation,
        verified: Verified | None,
        wish: Wish | None,
        evaluator: Evaluator | None = None,
        presented: Presented | None = None,
    ) -> None:
        self.conversation = conversation
        self.evaluator = evaluator
        """By which it was let in; None: once it lives, for a plan that is replaced shall not stay."""
        self.verified = verified
        self.presented = presented
        """What opened it; None once it lives, for a secret shall not stay."""
        self.wish = wish
        """None: it came to a mapping's listener."""
        self.relay: Relay | None = None
        self.expected = False
        """Whether its sockets are prepared for an offer, or need not be."""
        self.tries = 0
        """How often it was offered to the kernel."""
        self.again = 0.0
        """By the loop's clock: before this moment it is not offered once more."""
        self.stays = False
        """The kernel can never have it."""
        self.offered = False
        """Paused until somebody else decides about an offer: it is not offered again meanwhile."""
        self.leave: Callable[[], None] = _nothing
        """Called once, when it is no longer here."""

    def refused(self, *, passes: bool) -> bool:
        """The kernel has not taken it. Whether its queues may be as large as they like for now."""
        self.stays = self.stays or not passes
        if self.stays or self.tries >= TRIES:
            self.expected = False
        return not self.expected


class Tunnels:
    """Holds the tunnels that live."""

    def __init__(self, judge: Judge) -> None:
        self.live: set[Tunnel] = set()
        self.empty = asyncio.Event()
        """Set while nothing lives."""
        self.empty.set()
        self.handover: Offering | None = None
        """What may take them over."""
        self.ripe_bytes = 0
        """After which a tunnel is offered at once; 0: bytes do not matter."""
        self.hands_over = True
        """Whether tunnels are offered at all."""
        self._judge = judge
        self._ledger = judge.ledger

    def open(
        self,
        tunnel: Tunnel,
        client: Wire,
        upstream: socket.socket,
        backend: Backend,
        *,
        ahead: bytes,
        bound: Bound | None,
        on_end: Callable[[], None],
    ) -> None:
        """Begin to carry, if the plan in force and the credential still allow it: both may have changed while
        it was dialled. `on_end` is called once.
        """

        def ended(reason: Reason) -> None:
            self._ledger.ended(tunnel.conversation, reason)
            self._forget(tunnel)

        tunnel.leave = on_end
        relay = tunnel.relay = client.relay(upstream, tunnel.conversation, ended, bound)
        self.live.add(tunnel)
        self.empty.clear()
        self._ledger.opened(tunnel.conversation, backend)
        # Mostly nothing has changed since it was asked for.
        same, tunnel.evaluator = tunnel.evaluator is self._ledger.evaluator, None
        presented, tunnel.presented = tunnel.presented, None
        reason = self._judge.taken_back(presented, tunnel.verified) or (
            None if same else self._refusal(tunnel)
        )
        tunnel.stays = tunnel.stays or not relay.joinable
        if self.handover is not None and self.hands_over and not tunnel.stays:
            # What is bound mostly stays here to its end, and small queues would slow it down for nothing.
            tunnel.expected = bound is not None
            if self.ripe_bytes:
                relay.when_carried(min(FEW, self.ripe_bytes), partial(self._expect, tunnel))
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

    def expire(self, idle: float, deadlines: Deadlines) -> None:
        """End what has been silent for so many seconds (0: for ever), or is over by the plan in force."""
        for tunnel in tuple(self.live):
            conversation = tunnel.conversation
            if idle and conversation.idle() > idle:
                _end(tunnel, Reason.IDLE)
            elif reason := deadlines.overdue_conversation(conversation, tunnel.verified):
                _end(tunnel, reason)

    def offer(self, bytes_: int, seconds: float, *, urgent: bool = False) -> None:
        """Offer the kernel what has carried so many bytes, or is so old (0: does not matter).

        `ripe_bytes` is quicker; this is for what is old, and for what could not be taken before. `urgent`:
        there are no pauses, for soon they end.
        """
        if self.handover is None or not (bytes_ or seconds):
            return
        now = float("inf") if urgent else asyncio.get_running_loop().time()
        ripe = (
            tunnel
            for tunnel in tuple(self.live)
            if _may_be_offered(tunnel, now) and _is_ripe(tunnel.conversation, bytes_, seconds)
        )
        for tunnel in islice(ripe, OFFERED_AT_ONCE):
            self._offer(tunnel, urgent=urgent)

    async def wait_empty(self, seconds: float) -> None:
        """Until nothing lives, or so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.empty.wait()

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

    def _expect(self, tunnel: Tunnel) -> None:
        """It goes on after a question and an answer, and may be worth to be offered."""
        relay = tunnel.relay
        if relay is None or relay.ended or self.handover is None:
            return
        self._prepare(tunnel, relay)
        left = self.ripe_bytes - FEW
        if left > 0:
            relay.when_carried(left, partial(self._offer, tunnel))
        else:
            self._offer(tunnel)

    def _offer(self, tunnel: Tunnel, *, urgent: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        relay = tunnel.relay
        if self.handover is None or relay is None or not (urgent or _may_be_offered(tunnel, now)):
            return
        has_grown = tunnel.tries >= TRIES and not tunnel.expected
        self._prepare(tunnel, relay)
        if has_grown and not urgent:
            tunnel.again = now + SETTLE
            return
        if self.ripe_bytes and tunnel.tries < TRIES:
            relay.when_carried(self.ripe_bytes << tunnel.tries + 1, partial(self._offer, tunnel))
        tunnel.tries += 1
        if tunnel.tries >= TRIES:
            tunnel.again = now + min(PAUSE * (1 << min(tunnel.tries - TRIES, 8)), LONGEST_PAUSE)
        self.handover.offer(tunnel, partial(self._passed_on, tunnel))

    def _prepare(self, tunnel: Tunnel, relay: Relay) -> None:
        if self.handover and not tunnel.expected:
            tunnel.expected = True
            self.handover.expect(relay.client, relay.upstream)

    def _passed_on(self, tunnel: Tunnel) -> None:
        self._ledger.passed_on(tunnel.conversation)
        self._forget(tunnel)

    def _forget(self, tunnel: Tunnel) -> None:
        self.live.discard(tunnel)
        if not self.live:
            self.empty.set()
        leave, tunnel.leave = tunnel.leave, _nothing
        leave()

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
        conversation = tunnel.conversation
        blocked = self._judge.tunnels.refuse(conversation.query.source, conversation.name)
        if blocked:
            return blocked
        if tunnel.wish is not None:
            return self._judge.tunnel(tunnel.wish)
        return self._ledger.evaluator.evaluate(conversation.query)


def _end(tunnel: Tunnel, reason: Reason) -> None:
    if tunnel.relay:
        tunnel.relay.end(reason)


def _nothing() -> None:
    """Nobody waits for its end."""


def _may_be_offered(tunnel: Tunnel, now: float) -> bool:
    return not (tunnel.offered or tunnel.stays) and now >= tunnel.again


def _is_ripe(conversation: Conversation, bytes_: int, seconds: float) -> bool:
    carried = conversation.sent.bytes + conversation.received.bytes
    return bool(bytes_ and carried >= bytes_) or bool(seconds and conversation.age() >= seconds)
