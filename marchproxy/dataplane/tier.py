"""What the supervisor asks of a tier. Two exist: `kernel.tier.KernelTier` and `proxy.tier.SocketsTier`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from marchproxy.dataplane.agreement import KernelAnswer
from marchproxy.dataplane.capture.packet import Feed
from marchproxy.dataplane.capture.wish import Wish
from marchproxy.dataplane.carried import Carried
from marchproxy.dataplane.flowquery import FlowPage, FlowQuestion
from marchproxy.dataplane.flowtotals import FlowTotals, Grouping
from marchproxy.dataplane.naming import ServiceNames
from marchproxy.dataplane.records import (
    BackendLoad,
    Decision,
    Denials,
    EventKind,
    EventSink,
    Flow,
    InterfaceState,
    LimitState,
    TableFill,
    Traffic,
)
from marchproxy.model.address import IPAddress
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Query
from marchproxy.policy.plan import Plan


class Tier(Protocol):
    """Methods are coroutines where they may take longer than a millisecond; no two calls overlap, beside
    `page`, `totals`, `count` and `carried`.

    `apply` either carries out the whole plan or raises `MarchproxyError` and leaves what was there.
    """

    @property
    def name(self) -> str:
        """`kernel` or `sockets`."""

    async def start(self, sink: EventSink) -> None:
        """Load, adopt what an earlier run left in the kernel, and begin to report events to `sink`."""

    async def apply(self, plan: Plan, revision: int) -> None:
        """Make the data plane equal to `plan`. What stays allowed is not disturbed, the rest ends."""

    async def poll(self) -> None:
        """Called about four times a second: events, idle flows, interfaces and routes."""

    async def want(self, kinds: frozenset[EventKind]) -> None:
        """Report only events of these kinds from now on; all, before the first call."""

    async def flows(self, limit: int) -> Sequence[Flow]:
        """Live flows, at most `limit`."""

    async def page(self, question: FlowQuestion, services: ServiceNames) -> FlowPage:
        """Live flows as asked for. It may take seconds, and other calls may be made meanwhile."""

    async def totals(self, by: Grouping, services: ServiceNames) -> FlowTotals:
        """All live flows added up; otherwise as `page`."""

    async def count(self, services: Callable[[], ServiceNames]) -> None:
        """Count what is carried from now on. To be called once; `services` knows the plan in force, in any
        thread.
        """

    async def carried(self, services: ServiceNames) -> Carried:
        """What was carried since `count`, by flows that have ended and such that live: never more than that,
        and less by those that are just about to end. Flows that are older than `count` are counted by what
        they carry since this was first called. Otherwise as `totals`; no two calls of this overlap.
        """

    async def in_use(self, addresses: frozenset[IPAddress]) -> frozenset[IPAddress]:
        """Those of `addresses` that are on either side of some live flow."""

    async def cut(self, ids: frozenset[int]) -> frozenset[int]:
        """End flows by their ids; those that were there."""

    async def rehearse(self, query: Query) -> KernelAnswer | str:
        """What the programs in the kernel would do with a new flow, or in words why nobody can say.

        Nothing is left behind and nothing counted. Raises `MarchproxyError`.
        """

    async def capture(self, wish: Wish) -> Feed:
        """Begin to capture packets; `close` of the feed must follow. Raises `MarchproxyError`."""

    def counters(self) -> Mapping[Reason, Traffic]:
        """Packets and bytes by reason since the tables were created."""

    def denials(self) -> Sequence[Denials]:
        """What was refused, and let through by audit, by reason and mapping since the tables were created."""

    async def untold(self) -> Sequence[Decision]:
        """Refusals that are counted, and told with the next attempt of the same client, each with `count`."""

    def limits(self) -> Sequence[LimitState]:
        """What each limit of the plan has let through and dropped."""

    def loads(self) -> Sequence[BackendLoad]:
        """Established flows of the backends that the plan compares."""

    def interfaces(self) -> Sequence[InterfaceState]:
        """The interfaces of the plan, as found at the last `poll`."""

    def fill(self) -> Sequence[TableFill]:
        """How full the tables are, as found at the last `poll`."""

    def lost_events(self) -> int:
        """Events that could not be delivered since start; counted, never silently missing."""

    def problems(self) -> Sequence[str]:
        """What is wrong right now, in words; empty when healthy."""

    async def drain(self, seconds: float) -> None:
        """Stop accepting, let what user space holds finish for up to `seconds`, then close it.

        `flows` and `want` may be called meanwhile.
        """

    async def close(self) -> None:
        """Let go. The kernel tier leaves programs, pins and flows in place."""
