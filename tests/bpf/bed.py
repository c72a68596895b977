"""The compiled programs on a bench: both loaded, nothing attached, packets handed in one by one.

    client 10.1.0.2, fd01::2 ─── inside0  the bed  outside0 ─── servers 10.2.0.2 to .9, fd02::2 to ::9

The interfaces belong to a rig's middle host, in which the calling thread stays for as long as the bed lasts.
Every neighbour is known, so that look-ups of the way out resolve.
"""

import ctypes as ct
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, Literal

from marchproxy import bpf
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.banks import Banks
from marchproxy.dataplane.kernel.blocks import BlockTables
from marchproxy.dataplane.kernel.layouts import FlowEntry
from marchproxy.dataplane.kernel.libbpf import BatchOptions, TestRunOptions, library, possible_cpus
from marchproxy.dataplane.kernel.limitslots import LimitSlots
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.programs import Program
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.dataplane.kernel.settings import Settings
from marchproxy.dataplane.kernel.sourceaddress import source_towards
from marchproxy.dataplane.kernel.tables import TableBuilder
from marchproxy.model.reason import Reason
from marchproxy.policy.limits import Bucket
from marchproxy.policy.plan import Plan
from rig import Host, Rig
from rig.lifecycle import BPFFS
from tests.bpf.packets import Link, Packet, Tcp, Udp

type Tier = Literal["tc", "xdp"]

INSIDE, OUTSIDE = bytes.fromhex("020000010001"), bytes.fromhex("020000020001")
"""Link addresses of the bed's own interfaces."""
CLIENT, SERVER = bytes.fromhex("020000010002"), bytes.fromhex("020000020002")
"""Link addresses of everyone on the two sides."""
FROM_CLIENT, FROM_SERVER = Link(INSIDE, CLIENT), Link(OUTSIDE, SERVER)
TO_CLIENT, TO_SERVER = Link(CLIENT, INSIDE), Link(SERVER, OUTSIDE)

SIZES: Final = {"flows": 4096, "opening": 4096}
ROOM: Final = 65536 + 512
EVERY_DENIAL: Final = {"denied_events_per_second": 1 << 30, "repeat_ms": 0}
"""Settings with which each refused packet is told of by itself."""
_ONE_PORT = NatPorts(20000, 1)
"""With a single source port towards each backend, what goes out is known beforehand."""


class Action(IntEnum):
    """What a program returned, in the words of both tiers."""

    PASS = 0
    DROP = 1
    REDIRECT = 2


_ACTIONS: Final[dict[Tier, dict[int, Action]]] = {
    "tc": {0: Action.PASS, 2: Action.DROP, 7: Action.REDIRECT},
    "xdp": {2: Action.PASS, 1: Action.DROP, 4: Action.REDIRECT},
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a packet."""

    reason: Reason
    action: Action
    frame: bytes
    """As it came out, whatever the action."""
    octets: int
    """IP bytes, by the counter."""
    handed_up: bool = False
    """XDP left it to TC, whose outcome this is."""


class Runner:
    """One program, run on packet after packet in the same buffers: 4 µs a run."""

    def __init__(self, program: Program, tier: Tier, repeat: int = 1) -> None:
        self._program = program
        self._actions = _ACTIONS[tier]
        self._skb = tier == "tc"
        self._output = ct.create_string_buffer(ROOM)
        self._context = ct.create_string_buffer(192 if self._skb else 24)
        self._options = TestRunOptions(
            data_out=ct.addressof(self._output),
            ctx_in=ct.addressof(self._context),
            ctx_size_in=len(self._context),
            repeat=repeat,
        )

    def run(self, frame: bytes, ifindex: int, *, segments: tuple[int, int] = (0, 0)) -> tuple[Action, bytes]:
        """What it returns and what the frame is afterwards. `segments`: TC's gso_segs and gso_size."""
        if self._skb:
            struct.pack_into("=II", self._context, 36, ifindex, ifindex)
            struct.pack_into("=I", self._context, 164, segments[0])
            struct.pack_into("=I", self._context, 176, segments[1])
        else:
            struct.pack_into("=IIII", self._context, 0, 0, len(frame), 0, ifindex)
        options = self._options
        options.data_in = ct.cast(ct.c_char_p(frame), ct.c_void_p)
        options.data_size_in = len(frame)
        options.data_size_out = ROOM
        code = library().bpf_prog_test_run_opts(self._program.fd, ct.byref(options))
        if code:
            raise OSError(-code, f"{os.strerror(-code)}: {len(frame)} bytes, {frame.hex()}")
        return self._actions[options.retval], ct.string_at(self._output, options.data_size_out)

    def duration(self, frame: bytes, ifindex: int) -> int:
        """Nanoseconds that one run takes; of several the mean."""
        self.run(frame, ifindex)
        return int(self._options.duration)


class Counters:
    """The counters of all CPUs together, read in one system call."""

    def __init__(self, counters: Map) -> None:
        self._map = counters
        self._cells = possible_cpus()
        self._reasons = max(Reason) + 1
        self._keys = ct.create_string_buffer(4 * self._reasons)
        self._values = ct.create_string_buffer(16 * self._cells * self._reasons)
        self._position = ct.create_string_buffer(4)
        self._numbers = struct.Struct(f"={2 * self._cells * self._reasons}Q")
        self._before = self._read()

    def difference(self) -> dict[Reason, tuple[int, int]]:
        """Packets and bytes by reason since the last call."""
        after = self._read()
        before, self._before = self._before, after
        if before == after:
            return {}
        width = 2 * self._cells
        changed = {at // width for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
        return {Reason(index): self._sums(before, after, index * width) for index in changed}

    def _sums(self, before: tuple[int, ...], after: tuple[int, ...], at: int) -> tuple[int, int]:
        end = at + 2 * self._cells
        packets, octets = (sum(after[start:end:2]) - sum(before[start:end:2]) for start in (at, at + 1))
        return packets, octets

    def _read(self) -> tuple[int, ...]:
        count = ct.c_uint32(self._reasons)
        buffers = (self._position, self._keys, self._values, ct.byref(count))
        code = library().bpf_map_lookup_batch(self._map.fd, None, *buffers, ct.byref(BatchOptions()))
        assert (code, count.value) == (0, self._reasons)
        return self._numbers.unpack_from(self._values)


class Bed:
    """See the module. Policy by `apply`, packets by `send`, everything forgotten by `reset`."""

    def __init__(self, rig: Rig, sizes: Mapping[str, int] = SIZES) -> None:
        self.rig = rig
        self.host = rig.middle
        self.server: Host = rig.server
        pins = BPFFS / f"{rig.name}-bed"
        tc = BpfObject.load(bpf.OBJECTS / "tc.bpf.o", pin_dir=pins, max_entries=sizes)
        xdp = BpfObject.load(bpf.OBJECTS / "xdp.bpf.o", pin_dir=pins, max_entries=sizes)
        # The pins were only for the second object to find the first one's maps.
        for pin in pins.iterdir():
            pin.unlink()
        pins.rmdir()
        self.maps = tc.maps
        self.programs: dict[Tier, Program] = {
            "tc": tc.programs["marchproxy_tc"],
            "xdp": xdp.programs["marchproxy_xdp"],
        }
        self.runners: dict[Tier, Runner] = {
            tier: Runner(program, tier) for tier, program in self.programs.items()
        }
        self.counters = Counters(self.maps["counters"])
        self.ifindex = _interfaces(rig)
        self.settings = Settings(self.maps["settings"])
        self.mappings: dict[str, int] = {}
        self.limits = LimitSlots(self.maps)
        # Kept from test to test, as the daemon keeps them from plan to plan: a bank as a whole takes 25 ms.
        self._builder = self._new_builder()
        self._banks = Banks(self.maps, self.settings)
        self._blocks = BlockTables(self.maps, self.settings, self._number_of)
        self.reset()

    def reset(self) -> None:
        """As after loading: no policy, no flows, one source port, and TCP port 22 for management."""
        quic = "quic_homes", "quic_offers"
        for name in ("flows", "opening", "fragments", "active", "denied", "repeats", "limited", *quic):
            self.maps[name].delete_many(list(self.maps[name].keys()))
        self.settings.change(revision=0, wanted_events=0, silent=0)
        # What was remembered of the host's own connections is not.
        self.settings.routes_changed()
        self.settings.prepare(_ONE_PORT)
        guard = bytearray(layouts.MANAGEMENT.size)
        guard[22 // 8] |= 1 << 22 % 8
        self.maps["management"].set(layouts.U32.pack(0), bytes(guard))
        for own in self.ifindex:
            self.know_interface(own, native=True)
        for name in ("refusals", "denied_events"):
            self.maps[name].set_percpu(layouts.U32.pack(0), [bytes(16)] * possible_cpus())
        self.forget_beginnings()
        self.mappings.clear()
        names = self.maps["limit_names"]
        names.update_many([(key, bytes(names.value_size)) for key, _ in names.items()])
        self.limits = LimitSlots(self.maps)
        self.apply(Plan())
        self.counters.difference()

    def forget_beginnings(self) -> None:
        """Nothing was told of."""
        for number in (layouts.BEGINNING_TOLD, layouts.BEGINNING_ESTABLISHED, layouts.BEGINNING_ENDED):
            self.maps["beginnings"].set_percpu(layouts.U32.pack(number), [bytes(8)] * possible_cpus())

    def apply(self, plan: Plan, revision: int = 1) -> None:
        """Make `plan` the policy that holds."""
        self._blocks.prepare(plan.blocks)
        try:
            tables = self._builder.build(plan)
        except PlanTooLarge:
            self._builder = self._new_builder()
            raise
        self._banks.switch(tables, revision)
        self._blocks.switch()

    def know_interface(self, own: bytes, *, native: bool, role: int = 0) -> None:
        """Tell the programs whether the interface of that link address takes bare frames."""
        value = layouts.INTERFACE.struct.pack(own, native, role)
        self.maps["interfaces"].set(layouts.U32.pack(self.ifindex[own]), value)

    def send(self, tier: Tier, packet: Packet | bytes, *, segments: tuple[int, int] = (0, 0)) -> Outcome:
        """Let a packet arrive where its link address says; what XDP hands up goes on to TC."""
        frame = packet if isinstance(packet, bytes) else packet.build()
        ifindex = self.ifindex.get(frame[:6], self.ifindex[INSIDE])
        action, out = self.runners[tier].run(frame, ifindex, segments=segments)
        ((reason, (_, octets)),) = self.counters.difference().items()
        if reason is not Reason.HANDED_UP:
            return Outcome(reason, action, out, octets)
        assert (tier, action, out) == ("xdp", Action.PASS, frame), "what is handed up stays whole"
        action, out = self.runners["tc"].run(frame, ifindex)
        ((reason, (_, octets)),) = self.counters.difference().items()
        return Outcome(reason, action, out, octets, handed_up=True)

    def flow(self, packet: Packet) -> FlowEntry | None:
        """The flow of a TCP or UDP packet as it arrives, established or not."""
        key = flow_key(packet)
        raw = self.maps["flows"].get(key) or self.maps["opening"].get(key)
        return layouts.read_flow(raw) if raw else None

    def is_established(self, packet: Packet) -> bool:
        """Whether the flow of a packet is in the flow table proper."""
        return self.maps["flows"].get(flow_key(packet)) is not None

    def count(self, table: str) -> int:
        """How many entries a map has."""
        return len(list(self.maps[table].keys()))

    def _new_builder(self) -> TableBuilder:
        return TableBuilder(self._number_of, source_towards, self._slots_of)

    def _slots_of(self, buckets: Iterable[Bucket]) -> Mapping[Bucket, int]:
        # By a way of its own: `reset` makes the slots anew.
        return self.limits.settle(buckets)

    def _number_of(self, mapping: str) -> int:
        return self.mappings.setdefault(mapping, len(self.mappings) + 1)


def flow_key(packet: Packet) -> bytes:
    """`mp_flow_key` of a TCP or UDP packet."""
    transport = packet.transport
    assert isinstance(transport, Tcp | Udp)
    return layouts.FLOW_KEY.struct.pack(
        layouts.pack_address(packet.source),
        layouts.pack_address(packet.destination),
        layouts.pack_port(transport.source),
        layouts.pack_port(transport.destination),
        packet.protocol,
    )


def _interfaces(rig: Rig) -> dict[bytes, int]:
    """Fix link addresses and neighbours, switch forwarding on; own link addresses to interface numbers."""
    sides = (("inside0", INSIDE, CLIENT, "10.1.0", "fd01:"), ("outside0", OUTSIDE, SERVER, "10.2.0", "fd02:"))
    rig.client.ip(f"link set eth0 address {CLIENT.hex(':')}")
    rig.server.ip(f"link set eth0 address {SERVER.hex(':')}")
    # Whatever is not local has a way out.
    rig.middle.ip("route replace default via 10.2.0.2", "route replace default via fd02::2")
    for name, own, peer, v4, v6 in sides:
        rig.middle.ip(
            f"link set {name} address {own.hex(':')}",
            *(
                f"neighbour replace {address} lladdr {peer.hex(':')} dev {name} nud permanent"
                for last in range(2, 10)
                for address in (f"{v4}.{last}", f"{v6}:{last}")
            ),
        )
        rig.middle.sysctl({f"net.ipv{version}.conf.{name}.forwarding": "1" for version in (4, 6)})
    return rig.middle.call(lambda: {own: socket.if_nametoindex(name) for name, own, *_ in sides})


@contextmanager
def inside(host: Host) -> Iterator[None]:
    """Move the calling thread into a host's network namespace for a while."""
    with Path("/proc/thread-self/ns/net").open() as home, host.path.open() as there:
        os.setns(there.fileno(), os.CLONE_NEWNET)
        try:
            yield
        finally:
            os.setns(home.fileno(), os.CLONE_NEWNET)
