"""What flows of the kernel had carried when they ended, added up.

The programs write a record of each end into the ring. Here only its sums are taken from it, which costs a
tenth of telling of it: so none is left out where telling has to yield, see `Allowance`.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable

from marchproxy.dataplane.carried import Carried, Load
from marchproxy.dataplane.kernel import halves, layouts
from marchproxy.dataplane.kernel.clock import KernelClock
from marchproxy.dataplane.kernel.flowmatch import PackedServices
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.tunnels import Tunnel, TunnelTable
from marchproxy.dataplane.naming import ServiceNames
from marchproxy.dataplane.records import Flow
from marchproxy.policy.plan import Plan


class FlowEnds:
    """Counts once `begin` has been called. For any thread.

    Flows that were there before are counted by what they carry from `settle` on, when a walk over the tables
    finds out what is to be left out: those that end earlier do not count. One that ends during that walk
    counts with all that it has carried.
    """

    def __init__(self, names: MappingNames, tunnels: TunnelTable) -> None:
        self._names = names
        self._tunnels = tunnels
        self._services: Callable[[], ServiceNames] = lambda: _NOBODYS
        self._packed = PackedServices(names, _NOBODYS, {})
        self._packed_of = _NOBODYS
        self._since = self._settled = 0
        """By the kernel's clock; 0: nothing is counted, or not yet what was there before."""
        self._carried = Carried()
        self._lock = threading.Lock()

    @property
    def counting(self) -> bool:
        """Whether anybody wants to know."""
        return bool(self._since)

    @property
    def settled(self) -> bool:
        """Whether what was there before is counted, too."""
        return bool(self._settled)

    def begin(self, services: Callable[[], ServiceNames]) -> None:
        """Count what ends from now on; `services` knows the services of the plan in force."""
        self._services = services
        self._since = KernelClock().monotonic

    def settle(self) -> int:
        """Count also ends of flows that are older than what is answered, by the kernel's clock."""
        self._settled = KernelClock().monotonic
        return self._since

    def so_far(self) -> Carried:
        """The sums as they are now."""
        with self._lock:
            return self._carried.copy()

    def leave_out(self, carried: Carried) -> None:
        """Take away what live flows had carried before they were counted."""
        with self._lock:
            self._carried.leave_out(carried)

    def take(self, records: Iterable[bytes]) -> None:
        """Add ends as the ring has them, which may be from before."""
        if not self.counting:
            return
        since, settled = self._since, self._settled or _NEVER
        loads: defaultdict[tuple[int, bytes, bytes, bytes, bytes, str], Load] = defaultdict(Load)
        for raw in records:
            (
                at,
                id,
                started,
                sent_packets,
                received_packets,
                sent_bytes,
                received_bytes,
                source,
                asked,
                backend,
                port,
                mapping,
                spliced,
            ) = layouts.EVENT_END_PARTS.unpack(raw)
            if at < (since if started >= since else settled):
                continue
            held = loads[mapping, source, asked, backend, port, self._opener(id) if spliced else ""]
            held.flows += 1
            held.sent_packets += sent_packets
            held.sent_bytes += sent_bytes
            held.received_packets += received_packets
            held.received_bytes += received_bytes
        with self._lock:
            for key, load in loads.items():
                self._add(*key, load)

    def note(self, flow: Flow) -> None:
        """Add a flow that user space has ended."""
        if not self.counting:
            return
        if not self.settled and flow.started < KernelClock().wall(self._since):
            return
        decision = self._services().complete_flow(flow).decision
        load = Load(1, flow.sent.packets, flow.sent.bytes, flow.received.packets, flow.received.bytes)
        services = decision.source_service, decision.destination_service
        with self._lock:
            self._carried.take(decision.mapping, *services, load)

    def enter(self, raw_key: bytes, client: bytes, reply: bytes, tunnel: Tunnel) -> Callable[[], None]:
        """Leave out what a tunnel had carried when the kernel took it over: others have counted that.

        To be called before its entries are there; what is answered takes it back.
        """
        if not self.counting:
            return _nothing
        half, other = halves.HALF.unpack(client), halves.HALF.unpack(reply)
        load = Load(
            *(1, half[halves.PACKETS], half[halves.BYTES], other[halves.PACKETS], other[halves.BYTES])
        )
        ends = halves.client(raw_key, half), halves.asked(raw_key, half), *halves.backend(raw_key, half)
        key = half[halves.MAPPING], *ends, tunnel.service

        def add(load: Load) -> None:
            with self._lock:
                self._add(*key, load)

        add(-load)
        return lambda: add(load)

    def _add(
        self, mapping: int, source: bytes, asked: bytes, backend: bytes, port: bytes, opener: str, load: Load
    ) -> None:
        services = self._services()
        if services is not self._packed_of:
            self._packed, self._packed_of = PackedServices(self._names, services, {}), services
        service = opener or self._packed.claimed(source, mapping)
        destination = self._packed.reached(asked, mapping, backend, port)
        self._carried.take(self._names.name(mapping), service, destination, load)

    def _opener(self, id: int) -> str:
        held = self._tunnels.get(id)
        return held.tunnel.service if held else ""


_NOBODYS = ServiceNames(Plan())
_NEVER = 1 << 64


def _nothing() -> None:
    """There is nothing to take back."""
