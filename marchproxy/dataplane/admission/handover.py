"""Tunnels that the kernel takes over, and those that it has: `kernel/handoff` in admission's terms.

A tunnel goes when it is worth it (`Settings.handoff_bytes`, `handoff_seconds`) and holds no byte. From then
on it is a flow of the kernel's, which outlives the daemon; what was known about it here lies beside the flow,
so that another daemon can go on to ask whether it may go on.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Container

from marchproxy.dataplane.admission.ripe import Ripe, ripe
from marchproxy.dataplane.admission.tunnels import Judged, Tunnel
from marchproxy.dataplane.kernel.backlog import lift_limits, limit_backlog
from marchproxy.dataplane.kernel.handoff import (
    Draining,
    Handoff,
    Progress,
    TunnelFacts,
)
from marchproxy.dataplane.kernel.joining import HandoffRefusal
from marchproxy.dataplane.kernel.tier import KernelTier
from marchproxy.dataplane.kernel.tunnels import HeldTunnel
from marchproxy.dataplane.proxy.connecting import connected
from marchproxy.dataplane.proxy.relay import Relay
from marchproxy.dataplane.records import Flow
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.address import IPAddress
from marchproxy.model.errors import MarchproxyError
from marchproxy.model.reason import Reason

log = logging.getLogger(__name__)

LAST_DRAIN = 2.0
"""Seconds that the end of the daemon waits for tunnels that drain."""
DRAIN_EVERY = 0.004
"""Seconds between two looks at a tunnel that drains; the first come sooner."""
_SOON = 0.0005


class Handover:
    """Hands tunnels to one kernel tier."""

    def __init__(self, tier: KernelTier) -> None:
        self._tier = tier
        self._handoff: Handoff | None = None
        """None: nothing is handed over."""
        self._ports = tier.upstream_ports()
        self._numbers: dict[str, int] = {}
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        """By mapping that is being numbered."""
        self._tasks = Tasks()

    def start(self) -> None:
        """Hand over from now on. The tier has started; where its kernel tells too little about sockets, all
        tunnels stay here.
        """
        try:
            self._handoff = self._tier.handoff()
        except MarchproxyError as error:
            log.warning("tunnels stay in user space: %s", error.message)

    async def connect(self, address: IPAddress, port: int, until: float | None) -> socket.socket:
        """A connection that may be handed off. See `connecting.Connect`."""
        return await connected(self._ports.open(address, port), until)

    def expect(self, client: socket.socket, upstream: socket.socket) -> None:
        """A tunnel begins that may be offered later."""
        if self._handoff is not None:
            limit_backlog(client, upstream)

    def offer(self, tunnel: Tunnel, gone: Callable[[], None]) -> None:
        """Hand a tunnel over as soon as it holds nothing. `gone` is called when the kernel has it."""
        relay = tunnel.relay
        if self._handoff is None or relay is None or relay.ended:
            return
        mapping = tunnel.conversation.answer.mapping
        self.when_numbered(mapping, lambda: relay.when_quiet(lambda: self._attempt(tunnel, relay, gone)))

    def when_numbered(self, mapping: str, then: Callable[[], None]) -> None:
        """Call `then` when the kernel has a number for the mapping, or cannot have one: mostly at once."""
        if mapping in self._numbers:
            then()
        elif mapping in self._waiting:
            self._waiting[mapping].append(then)
        else:
            self._waiting[mapping] = [then]
            self._tasks.start(self._number(mapping), name=f"number of {mapping}")

    def end_where(self, judge: Judged) -> None:
        """End the tunnels in the kernel that `judge` gives a reason against."""
        self._end(lambda flow, held: judge(flow, held.tunnel))

    def revoke(self, token: str) -> int:
        """End the tunnels in the kernel that a credential opened; how many."""
        found = 0

        def is_meant(flow: Flow, held: HeldTunnel) -> Reason | None:
            nonlocal found
            if held.tunnel.credential != token:
                return None
            found += 1
            return Reason.AUTH_REVOKED

        self._end(is_meant)
        return found

    def end_untold(self, ids: Container[int]) -> None:
        """End tunnels in the kernel by the ids of their flows. Nobody is told: their end is known already."""
        if self._handoff:
            self._handoff.table.end_tunnels(
                lambda _, held: Reason.CUT if held.id in ids else None, lambda event: None
            )

    def _end(self, judge: Callable[[Flow, HeldTunnel], Reason | None]) -> None:
        if self._handoff:
            self._handoff.table.end_tunnels(judge, self._handoff.report)

    async def close(self) -> None:
        """Finish what drains: the kernel has it already, and mostly acknowledgements are missing.

        What takes too long ends.
        """
        until = time.monotonic() + LAST_DRAIN
        while len(self._tasks) and time.monotonic() < until:
            await asyncio.sleep(DRAIN_EVERY)
        await self._tasks.stop()

    def take(self, client: socket.socket, upstream: socket.socket, ripe: Ripe) -> HandoffRefusal | None:
        """Take two sockets over, of which nothing is read and not yet written. None: the kernel has them.

        The mapping has been numbered (`when_numbered`).
        """
        number = self._numbers.get(ripe.mapping)
        if self._handoff is None:
            return HandoffRefusal.UNSUPPORTED
        if number is None:
            return HandoffRefusal.UNNUMBERED
        facts = TunnelFacts(ripe.number, number, ripe.revision, ripe.started, ripe.remembered)
        try:
            outcome = self._handoff.attempt(client, upstream, facts)
        except (MarchproxyError, ValueError) as error:
            log.debug("handoff of %d: %s", ripe.number, error, extra={"flow": ripe.number})
            return HandoffRefusal.UNSUPPORTED
        if isinstance(outcome, Draining):
            self._tasks.start(_drain(outcome), name=f"drain {outcome.id}", flow=outcome.id)
            return None
        log.debug("no handoff of %d: %s", ripe.number, outcome, extra={"flow": ripe.number})
        return outcome

    def _attempt(self, tunnel: Tunnel, relay: Relay, gone: Callable[[], None]) -> None:
        refused = self.take(relay.client, relay.upstream, ripe(tunnel))
        if refused is None:
            relay.leave()
            gone()
            return
        if tunnel.refused(passes=refused.passes):
            lift_limits(relay.client, relay.upstream)
        relay.start()

    async def _number(self, mapping: str) -> None:
        try:
            self._numbers[mapping] = await self._tier.mapping_number(mapping)
        finally:
            for then in self._waiting.pop(mapping):
                then()


async def _drain(draining: Draining) -> None:
    """To the end, or until cancelled: then it ends in a way that its peers hear of."""
    progress, pause = Progress.DRAINING, _SOON
    try:
        while (progress := draining.advance()) is Progress.DRAINING:
            await asyncio.sleep(pause)
            pause = min(pause * 1.25, DRAIN_EVERY)
    finally:
        if progress is Progress.DRAINING:
            draining.abandon()
