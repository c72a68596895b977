"""The kernel as a tier of the data plane: loads the pipeline, applies plans, reads facts."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from marchproxy import bpf
from marchproxy.dataplane.kernel import features, layouts, location
from marchproxy.dataplane.kernel.banks import Banks
from marchproxy.dataplane.kernel.changes import FlowReview
from marchproxy.dataplane.kernel.errors import KernelError, NotPermitted
from marchproxy.dataplane.kernel.events import EventReader
from marchproxy.dataplane.kernel.flows import FlowTable, Timeouts
from marchproxy.dataplane.kernel.forwarding import Forwarding
from marchproxy.dataplane.kernel.interfaces import Attachments, Programs
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.pins import make_pin_directory
from marchproxy.dataplane.kernel.routewatch import RouteWatch
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.dataplane.kernel.settings import NatPorts, Settings
from marchproxy.dataplane.kernel.sourceaddress import source_towards
from marchproxy.dataplane.kernel.sweep import Sweep
from marchproxy.dataplane.kernel.tables import TableBuilder
from marchproxy.dataplane.records import EventKind, Flow, InterfaceState, TableFill, Traffic
from marchproxy.dataplane.tier import EventSink
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Plan

MANAGEMENT_PORTS = (22,)
_MANAGEMENT_VARIABLE = "MARCHPROXY_MANAGEMENT_PORTS"


class BpfNotPermitted(NotPermitted):
    """This process may not use BPF, or this kernel cannot; the message says which and why."""


class KernelTier:
    """See `dataplane.tier.Tier`. Everything that enters the kernel runs in one thread of its own, so no lock is needed."""

    name = "kernel"

    def __init__(self, maps: Mapping[str, Map], programs: Programs, pins: Path) -> None:
        self._maps = maps
        self._settings = Settings(maps["settings"])
        self._names = MappingNames(maps["mapping_names"])
        self._banks = Banks(maps, self._settings)
        self._builder = self._new_builder()
        self._table = FlowTable(maps, self._names, Timeouts())
        self._events = EventReader(maps["events"], maps["lost_events"], self._names)
        self._attachments = Attachments(
            programs, maps["interfaces"], pins / "links", Forwarding(location.forwarding_record())
        )
        self._routes = RouteWatch()
        self._sweep = Sweep(self._table)
        self._review = FlowReview(self._table)
        self._plan = Plan()
        self._sink: EventSink = _ignore
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")
        self._counters: dict[Reason, Traffic] = {}
        self._unreachable: list[str] = []

    @classmethod
    def create(cls) -> Self:
        """Load the pipeline, taking over pinned maps. Raises `BpfNotPermitted`, or another `KernelError`."""
        answer = features.bpf()
        if not answer.supported:
            raise BpfNotPermitted(f"BPF cannot be used: {answer.detail or answer}")
        pins = location.pin_directory()
        make_pin_directory(pins)
        make_pin_directory(pins / "links")
        tc = BpfObject.load(bpf.OBJECTS / "tc.bpf.o", pin_dir=pins)
        xdp = BpfObject.load(bpf.OBJECTS / "xdp.bpf.o", pin_dir=pins)
        programs = Programs(tc.programs["marchproxy_tc"], xdp.programs["marchproxy_xdp"])
        return cls(tc.maps, programs, pins)

    async def start(self, sink: EventSink) -> None:
        """See `Tier.start`."""
        self._sink = sink
        await self._in_thread(self._prepare)

    async def apply(self, plan: Plan, revision: int) -> None:
        """See `Tier.apply`: build everything, write the bank that nobody reads, switch, attach, then end what is no longer allowed."""
        await self._in_thread(self._apply, plan, revision)

    async def poll(self) -> None:
        """See `Tier.poll`."""
        await self._in_thread(self._poll)

    async def flows(self, limit: int) -> Sequence[Flow]:
        """See `Tier.flows`."""
        return await self._in_thread(self._table.list, limit)

    async def want(self, kinds: frozenset[EventKind]) -> None:
        """See `Tier.want`."""
        await self._in_thread(self._want, kinds)

    def counters(self) -> Mapping[Reason, Traffic]:
        """See `Tier.counters`."""
        return self._read_counters()

    def interfaces(self) -> Sequence[InterfaceState]:
        """See `Tier.interfaces`."""
        return self._attachments.states()

    def fill(self) -> Sequence[TableFill]:
        """See `Tier.fill`."""
        return [TableFill("flows", self._sweep.established, self._maps["flows"].max_entries)]

    def lost_events(self) -> int:
        """See `Tier.lost_events`."""
        return self._events.lost

    def problems(self) -> Sequence[str]:
        """See `Tier.problems`."""
        states = self._attachments.states()
        return [f"{state.name}: {state.problem}" for state in states if state.problem] + self._unreachable

    async def drain(self, seconds: float) -> None:
        """Nothing to drain: the kernel goes on carrying."""

    async def close(self) -> None:
        """See `Tier.close`."""
        await self._in_thread(self._routes.close)
        self._events.close()
        self._thread.shutdown()

    async def _in_thread[**P, R](self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: call(*args, **kwargs))

    def _new_builder(self) -> TableBuilder:
        return TableBuilder(self._names.number, source_towards)

    def _prepare(self) -> None:
        self._settings.prepare(NatPorts())
        self._want(frozenset(EventKind))
        guard = bytearray(layouts.MANAGEMENT.size)
        for port in management_ports():
            guard[port // 8] |= 1 << port % 8
        self._maps["management"].set(layouts.U32.pack(0), bytes(guard))

    def _want(self, kinds: frozenset[EventKind]) -> None:
        self._settings.change(wanted_events=self._events.mask(kinds))

    def _apply(self, plan: Plan, revision: int) -> None:
        try:
            tables = self._builder.build(plan)
        except PlanTooLarge:
            # Runs may only be scattered: once more from nothing, and if that fails it really is too large.
            self._builder = self._new_builder()
            tables = self._builder.build(plan)
        self._banks.switch(tables, revision)
        self._attachments.want(plan.interfaces)
        self._review.review(self._plan, plan, self._sink)
        self._plan = plan
        self._unreachable = self._find_unreachable()

    def _poll(self) -> None:
        self._events.read(self._sink)
        heard = self._routes.heard()
        if heard:
            self._settings.routes_changed()
        if heard.routes:
            if self._builder.renew_sources():
                self._banks.switch(self._builder.tables, self._settings.revision)
            self._unreachable = self._find_unreachable()
        self._attachments.look_after()
        self._sweep.turn(self._sink)

    def _find_unreachable(self) -> list[str]:
        return [f"no route to backend {address}" for address in self._builder.without_route()]

    def _read_counters(self) -> dict[Reason, Traffic]:
        counters = {}
        for reason in Reason:
            cells = self._maps["counters"].get_percpu(layouts.U32.pack(reason))
            pairs = [layouts.COUNTER.struct.unpack(cell) for cell in cells]
            total = Traffic(sum(packets for packets, _ in pairs), sum(octets for _, octets in pairs))
            if total.packets:
                counters[reason] = total
        return counters


def management_ports() -> tuple[int, ...]:
    """TCP ports that always reach the host: `MARCHPROXY_MANAGEMENT_PORTS` (comma-separated), or 22."""
    text = os.environ.get(_MANAGEMENT_VARIABLE, "")
    ports = tuple(int(part) for part in text.split(",") if part.strip().isdigit() and 0 < int(part) < 65536)
    return ports or MANAGEMENT_PORTS


def _ignore(event: object) -> None:
    """Before `start` nobody listens."""


__all__ = ["BpfNotPermitted", "KernelError", "KernelTier"]
