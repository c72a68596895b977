"""The kernel as a tier of the data plane: loads the pipeline, applies plans, reads facts."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Self

from marchproxy.dataplane.agreement import KernelAnswer
from marchproxy.dataplane.capture.packet import Feed
from marchproxy.dataplane.capture.wish import Wish
from marchproxy.dataplane.carried import Carried
from marchproxy.dataplane.flowquery import FlowPage, FlowQuestion
from marchproxy.dataplane.flowtotals import FlowTotals, Grouping
from marchproxy.dataplane.kernel import layouts, location
from marchproxy.dataplane.kernel.active import ActiveFlows
from marchproxy.dataplane.kernel.attach import detach_others
from marchproxy.dataplane.kernel.banks import Banks
from marchproxy.dataplane.kernel.blocks import BlockTables
from marchproxy.dataplane.kernel.capture import Capture, CaptureFeed
from marchproxy.dataplane.kernel.changes import FlowReview
from marchproxy.dataplane.kernel.denials import read_denials, read_untold
from marchproxy.dataplane.kernel.diversion import Diversion
from marchproxy.dataplane.kernel.events import EventReader
from marchproxy.dataplane.kernel.failover import Failover
from marchproxy.dataplane.kernel.flowends import FlowEnds
from marchproxy.dataplane.kernel.flows import FlowTable, Timeouts
from marchproxy.dataplane.kernel.flowscan import FlowScan
from marchproxy.dataplane.kernel.forwarding import Forwarding
from marchproxy.dataplane.kernel.handoff import Handoff
from marchproxy.dataplane.kernel.hangup import hang_up
from marchproxy.dataplane.kernel.interfaces import Attachments, index_of
from marchproxy.dataplane.kernel.limitslots import LimitSlots
from marchproxy.dataplane.kernel.loading import BpfNotPermitted, Pipeline, load_pipeline
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.natports import NatPorts, keep_apart
from marchproxy.dataplane.kernel.pressure import Census, Pressure
from marchproxy.dataplane.kernel.quichomes import QuicHomes
from marchproxy.dataplane.kernel.rehearsal import rehearse
from marchproxy.dataplane.kernel.routewatch import RouteWatch
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.dataplane.kernel.settings import Settings
from marchproxy.dataplane.kernel.sourceaddress import source_towards
from marchproxy.dataplane.kernel.sourcepools import SourcePools
from marchproxy.dataplane.kernel.splices import Splices
from marchproxy.dataplane.kernel.sweep import Sweep
from marchproxy.dataplane.kernel.sysctls import Sysctls
from marchproxy.dataplane.kernel.tables import TableBuilder
from marchproxy.dataplane.kernel.transit import is_diverted
from marchproxy.dataplane.kernel.tunnels import TunnelTable
from marchproxy.dataplane.kernel.upstreamports import UpstreamPorts
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
from marchproxy.model.appliance import DEFAULT_SETTINGS
from marchproxy.model.errors import MarchproxyError
from marchproxy.model.management import read_management_ports
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Query
from marchproxy.policy.plan import Plan

__all__ = ["BpfNotPermitted", "KernelTier"]

log = logging.getLogger(__name__)


class KernelTier:
    """See `dataplane.tier.Tier`.

    Whatever changes something, or takes long, runs in one thread of its own, so there is no lock; only what
    looks at all flows has another, and changes nothing. What is no coroutine may be called meanwhile: it
    reads values that are replaced as a whole, or the kernel.
    """

    name = "kernel"

    def __init__(self, pipeline: Pipeline) -> None:
        """Take over `pipeline`. The network namespace is that of the calling thread."""
        maps = pipeline.maps
        with ExitStack() as opened:
            opened.callback(pipeline.close)
            self._maps = maps
            self._settings = Settings(maps["settings"])
            self._names = MappingNames(maps["mapping_names"])
            tunnels = TunnelTable(maps["tunnels"])
            self._ends = FlowEnds(self._names, tunnels)
            self._events = EventReader(
                *(maps["events"], maps["lost_events"], self._names, tunnels), ended=self._ends.take
            )
            opened.callback(self._events.close)
            self._routes = RouteWatch()
            opened.callback(self._routes.close)
            self._opened = opened.pop_all()
        self._sysctls = Sysctls(location.sysctl_record())
        self._capture = Capture(maps, self._settings, self._names)
        self._opened.callback(self._capture.end)
        self._banks = Banks(maps, self._settings)
        self._limit_slots = LimitSlots(maps)
        self._blocks = BlockTables(maps, self._settings, self._names.number)
        self._builder = self._new_builder()
        self._table = FlowTable(maps, self._names, Timeouts(), hang_up=hang_up, ended=self._ends.note)
        self._scan = FlowScan(maps, self._names)
        self._splices = Splices(maps)
        self._load_handoff = pipeline.load_handoff
        self._load_rehearsal = pipeline.load_rehearsal
        self._settle = pipeline.settle
        self._attachments = Attachments(
            pipeline.programs,
            maps["interfaces"],
            location.link_directory(),
            Forwarding(self._sysctls),
            self._settings.routes_changed,
        )
        self._pressure = Pressure(maps["flows"].max_entries, maps["opening"].max_entries)
        self._active = ActiveFlows(maps)
        self._quic_homes = QuicHomes(maps, self._names.number, source_towards)
        self._diversion = Diversion(maps["divert_sockets"], self._settings)
        self._opened.callback(self._diversion.close)
        self._failover = Failover(self._table)
        self._sweep = Sweep(self._table, self._take_stock)
        self._review = FlowReview(self._table)
        self._sources = SourcePools(maps["own_addresses"], maps["nat_pools"])
        self._plan = Plan()
        self._sink: EventSink = _ignore
        self._wanted = frozenset(EventKind)
        self._moved = False
        """Something was heard of, and not everything has been done about it."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")
        self._scanning = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scan")
        self._ports_problem: tuple[str, ...] = ()
        self._unreachable: tuple[str, ...] = ()

    @classmethod
    def create(cls, flow_table: int = DEFAULT_SETTINGS.flow_table) -> Self:
        """Load the pipeline, taking over pinned maps; new ones for that many entries of flows.

        See `load_pipeline` for what it raises.
        """
        return cls(load_pipeline(location.pin_directory(), flow_table=flow_table))

    async def start(self, sink: EventSink) -> None:
        """See `Tier.start`. `sink` is called in the tier's thread."""
        self._sink = sink
        await self._in_thread(self._prepare)

    async def apply(self, plan: Plan, revision: int) -> None:
        """See `Tier.apply`: policy switches, then come interfaces, then flows that are refused now."""
        await self._in_thread(self._apply, plan, revision)

    async def poll(self) -> None:
        """See `Tier.poll`."""
        await self._in_thread(self._poll)

    async def flows(self, limit: int) -> Sequence[Flow]:
        """See `Tier.flows`."""
        return await self._in_thread(self._table.list, limit)

    async def page(self, question: FlowQuestion, services: ServiceNames) -> FlowPage:
        """See `Tier.page`."""
        return await self._in_scan(self._scan.page, question, services)

    async def totals(self, by: Grouping, services: ServiceNames) -> FlowTotals:
        """See `Tier.totals`."""
        return await self._in_scan(self._scan.totals, by, services)

    async def count(self, services: Callable[[], ServiceNames]) -> None:
        """See `Tier.count`."""
        await self._in_thread(self._count, services)

    async def carried(self, services: ServiceNames) -> Carried:
        """See `Tier.carried`."""
        if self._ends.counting and not self._ends.settled:
            since = await self._in_thread(self._ends.settle)
            self._ends.leave_out(await self._in_scan(self._scan.carried, services, since))
        # In this order, or what ends in between would count twice.
        ended = await self._in_thread(self._ends.so_far)
        found = await self._in_scan(self._scan.carried, services)
        found.add(ended)
        return found

    async def in_use(self, addresses: frozenset[IPAddress]) -> frozenset[IPAddress]:
        """See `Tier.in_use`."""
        packed = {layouts.pack_address(address): address for address in addresses}
        found = await self._in_thread(self._table.touching, packed.keys())
        return frozenset(packed[raw] for raw in found)

    async def want(self, kinds: frozenset[EventKind]) -> None:
        """See `Tier.want`."""
        await self._in_thread(self._want, kinds)

    async def rehearse(self, query: Query) -> KernelAnswer | str:
        """See `Tier.rehearse`."""
        return await self._in_thread(self._rehearse, query)

    def counters(self) -> Mapping[Reason, Traffic]:
        """See `Tier.counters`."""
        found = {}
        for key, cells in self._maps["counters"].items_percpu():
            packets, octets = map(sum, zip(*map(layouts.COUNTER.struct.unpack, cells), strict=True))
            if packets:
                found[Reason(layouts.U32.unpack(key)[0])] = Traffic(packets, octets)
        return found

    def denials(self) -> Sequence[Denials]:
        """See `Tier.denials`."""
        return read_denials(self._maps["denied"], self._names)

    async def untold(self) -> Sequence[Decision]:
        """See `Tier.untold`."""
        return await self._in_thread(lambda: list(read_untold(self._maps["repeats"], self._names)))

    def limits(self) -> Sequence[LimitState]:
        """See `Tier.limits`."""
        return self._limit_slots.states()

    def loads(self) -> Sequence[BackendLoad]:
        """See `Tier.loads`."""
        return self._active.loads()

    def interfaces(self) -> Sequence[InterfaceState]:
        """See `Tier.interfaces`."""
        return self._attachments.states

    def fill(self) -> Sequence[TableFill]:
        """See `Tier.fill`."""
        return self._pressure.fill

    def diverted(self) -> Sequence[socket.socket]:
        """Where connections are accepted that user space is to look at; none unless wanted."""
        return self._diversion.listening

    def lost_events(self) -> int:
        """See `Tier.lost_events`."""
        return self._events.lost + self._table.unended

    def problems(self) -> Sequence[str]:
        """See `Tier.problems`."""
        states = self._attachments.states
        broken = [f"{state.name}: {state.problem}" for state in states if state.problem]
        return [
            *broken,
            *self._unreachable,
            *self._ports_problem,
            *self._diversion.problems,
            *self._sources.problems,
            *self._pressure.problems,
            *self._size_problem(),
        ]

    def handoff(self) -> Handoff:
        """What hands connections to this tier. Raises as `load_pipeline` where the kernel tells too little.

        For one thread, not necessarily this one; it may be used until `close`.
        """
        programs = self._load_handoff()
        self._opened.callback(programs.close)
        return Handoff(self._maps, programs, self._splices, self._table, self._sink, self._ends)

    async def mapping_number(self, name: str) -> int:
        """The number of a mapping in the kernel's tables, by its qualified name; 0 for none."""
        return await self._in_thread(self._names.number, name) if name else 0

    def upstream_ports(self) -> UpstreamPorts:
        """Where connections come from that are to be handed off."""
        return UpstreamPorts(self._maps)

    async def cut(self, ids: frozenset[int]) -> frozenset[int]:
        """End flows by their ids; those that were there."""
        return await self._in_thread(self._cut, ids)

    async def capture(self, wish: Wish) -> Feed:
        """See `Tier.capture`."""
        turn = await self._in_thread(self._capture.begin, wish)
        return CaptureFeed(self._capture, turn, self._in_thread)

    async def drain(self, seconds: float) -> None:
        """The kernel goes on carrying; what was taken out of its ring is told."""
        await self._in_thread(self._events.finish, self._sink)

    async def close(self) -> None:
        """See `Tier.close`. Nothing may be called after it."""
        self._scan.stop()
        await self._in_thread(self._scanning.shutdown)
        await self._in_thread(self._opened.close)
        self._thread.shutdown()

    async def _in_thread[**P, R](self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: call(*args, **kwargs))

    async def _in_scan[**P, R](self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Beside everything else: walks over the tables take seconds, and policy must not wait for them."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._scanning, lambda: call(*args, **kwargs))

    def _new_builder(self) -> TableBuilder:
        return TableBuilder(self._names.number, source_towards, self._limit_slots.settle)

    def _prepare(self) -> None:
        ports = NatPorts()
        try:
            keep_apart(ports, self._sysctls)
        except MarchproxyError as error:
            self._ports_problem = (f"local sockets may get ports {ports}, which flows use: {error.message}",)
        self._settings.prepare(ports)
        self._want(frozenset(EventKind))
        # An earlier daemon's, if it was killed.
        self._capture.end()
        guard = bytearray(layouts.MANAGEMENT.size)
        for port in read_management_ports(os.environ):
            guard[port // 8] |= 1 << port % 8
        self._maps["management"].set(layouts.U32.pack(0), bytes(guard))

    def _count(self, services: Callable[[], ServiceNames]) -> None:
        self._ends.begin(services)
        self._want(self._wanted)

    def _want(self, kinds: frozenset[EventKind]) -> None:
        self._wanted = kinds
        self._events.want(kinds)
        counted = {EventKind.FLOW_END} if self._ends.counting else set[EventKind]()
        self._settings.want(self._events.mask(kinds | counted))

    def _apply(self, plan: Plan, revision: int) -> None:
        try:
            # First: not one flow may leave with an address that is to be hidden.
            self._follow_addresses(plan)
            # What a rule diverts has nowhere to go before this.
            if any(map(is_diverted, plan.transit)):
                self._diversion.begin()
            self._switch(plan, revision)
        except MarchproxyError:
            self._follow_addresses(self._plan)
            # The builder holds a plan that is not in force, or half of one.
            self._builder = self._new_builder()
            self._builder.build(self._plan)
            raise
        self._plan = plan
        self._settings.refuse_as(plan.settings)
        self._table.allow(Timeouts.of(plan.settings))
        self._active.want(plan)
        self._quic_homes.follow(plan)
        self._attachments.want(plan.interfaces)
        self._replace_others()
        self._settle()
        self._review.review(plan, self._sink)
        self._failover.follow(plan)
        self._find_unreachable()

    def _replace_others(self) -> None:
        """End what a version with another ABI has left, now that our own programs see to the traffic."""
        others = detach_others()
        if others:
            log.warning("another version had left what this one cannot carry over: %s", ", ".join(others))
            # An interface has room for one XDP program.
            self._attachments.retry()

    def _switch(self, plan: Plan, revision: int) -> None:
        try:
            tables = self._builder.build(plan)
        except PlanTooLarge:
            # Runs may only be scattered: once more from nothing, and if that fails it really is too large.
            self._builder = self._new_builder()
            tables = self._builder.build(plan)
        self._blocks.prepare(plan.blocks)
        try:
            self._banks.switch(tables, revision)
        except MarchproxyError:
            self._blocks.forget()
            raise
        self._blocks.switch()

    def _poll(self) -> None:
        self._events.read(self._sink)
        self._capture.look_after()
        heard = self._routes.heard()
        if heard:
            self._settings.routes_changed()
        self._moved = self._moved or heard.routes
        if self._moved:
            if self._builder.pools.renew_sources():
                self._banks.switch(self._builder.tables, self._settings.revision)
                self._quic_homes.follow(self._plan)
            self._find_unreachable()
            self._follow_addresses(self._plan, moved=True)
        # Links come and go, and forwarding is switched, no less often than that is heard.
        if self._moved or self._attachments.due():
            self._attachments.look_after()
            self._diversion.look_after()
        self._moved = False
        self._banks.follow()
        self._sweep.turn(self._sink)

    def _rehearse(self, query: Query) -> KernelAnswer | str:
        attached = {state.name for state in self._attachments.states if state.attached}
        return rehearse(query, self._load_rehearsal, self._names, attached)

    def _cut(self, ids: frozenset[int]) -> frozenset[int]:
        return frozenset(self._table.cut(ids, Reason.CUT, self._sink))

    def _take_stock(self, census: Census) -> None:
        self._pressure.update(census)
        self._splices.settle(census.spliced, census.started)
        self._active.correct()
        self._quic_homes.follow(self._plan)

    def _follow_addresses(self, plan: Plan, *, moved: bool = False) -> None:
        indexes = {index_of(each.name): each for each in plan.interfaces}
        self._sources.follow({index: each for index, each in indexes.items() if index}, moved=moved)

    def _size_problem(self) -> Iterator[str]:
        """A table that is pinned is not given another size: see KERNEL, "Flows"."""
        size, wanted = self._maps["flows"].max_entries, self._plan.settings.flow_table
        if size != wanted:
            yield (
                f"the flow table holds {size} entries, the settings say {wanted}:"
                " marchproxy detach (which ends all flows) and a start of the daemon make it so"
            )

    def _find_unreachable(self) -> None:
        stranded = self._builder.pools.without_route()
        self._unreachable = tuple(f"no route to backend {address}" for address in stranded)


def _ignore(event: object) -> None:
    """Before `start` nobody listens."""
