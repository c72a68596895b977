"""The ways that packets go through the pipeline, each with the policy and the flows that it needs."""

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count as counting
from typing import Any

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.kernel.splices import Side, Splice
from marchproxy.dataplane.kernel.tcpsocket import enter_repair
from marchproxy.model.appliance import Block
from marchproxy.model.reason import Reason
from marchproxy.policy.blocks import BlockMemo, compile_blocks
from marchproxy.policy.plan import Plan
from tests.bpf.bed import INSIDE, OUTSIDE, Bed, Tier, flow_key
from tests.bpf.packets import Packet, Tcp, Udp
from tests.bpf.policies import OPEN
from tests.bpf.talk import Talk, from_client
from tests.limits import rate
from tests.policy.build import NOW, mapping, plan, service

V4, V6 = ("10.1.0.2", "10.1.0.1"), ("fd01::2", "fd01::1")
_PLACE = 5
"""Of the splice."""
_connected: list[socket.socket] = []
"""The host's end of a connection, while a way needs one."""


@dataclass(frozen=True, slots=True)
class Path:
    """A way through the pipeline."""

    title: str
    reason: Reason
    frames: Sequence[bytes]
    establish: tuple[Packet, ...] = ()
    """Flows that must be there."""
    policy: Callable[[], Plan] = lambda: plan(*OPEN)
    finish: Callable[[Bed], None] = lambda _: None
    """What is to be done when policy and flows are there."""
    circular: bool = False
    """What comes out is of a flow again, that leads back to this one: it may be run again and again."""


def paths(count: int) -> Iterator[Path]:
    """What is measured; new flows take as many frames as packets are sent."""
    for version, addresses in ((4, V4), (6, V6)):
        datagram = _datagram(addresses).but(ttl=255)
        path = Path(f"established flow, IPv{version}", Reason.FORWARDED, [datagram.build()], (datagram,))
        yield replace(path, finish=partial(_lead_back, first=datagram), circular=True)
    answered = from_client(Tcp(40000, 80), *V4)
    tunnel = answered.but(transport__flags="A", transport__sequence=1001, transport__acknowledgement=5001)
    joined = Path("handed off", Reason.HANDED_OFF, [tunnel.build()], (answered,))
    yield replace(joined, finish=lambda bed: _join(bed, answered))
    yield Path("new flow", Reason.FORWARDED, list(_openings(count, *V4, port=80)))
    yield Path(
        *("first packet at a gateway", Reason.FORWARDED),
        list(_openings(count, "10.1.0.2", "10.2.0.2", port=443)),
        policy=_gateway,
        finish=_sides,
    )
    datagram = _datagram(V4)
    yield Path("blocked", Reason.BLOCKED_SOURCE, [datagram.build()], policy=_blocking)
    limited = Path("beyond a limit", Reason.RATE_LIMITED, [datagram.build()], (datagram,), _limiting)
    yield replace(limited, finish=lambda bed: _spend(bed, datagram))
    own = from_client(Tcp(40000, 8080, "A"), *V4)
    connected = Path("to a connection of the host", Reason.PASSED_TO_HOST, [own.build()])
    yield replace(connected, finish=lambda bed: _connect(bed, own))
    through = _datagram(("10.1.0.2", "10.2.0.2"), port=53)
    yield Path("denied", Reason.NO_MAPPING, [through.build()])
    yield Path("no listener", Reason.PASSED_TO_HOST, [_datagram(V4, port=81).build()])
    host = from_client(Tcp(40000, 22, "A"), *V4)
    yield Path("left to the host", Reason.PASSED_TO_HOST, [host.build()])


def prepare(bed: Bed, tier: Tier, path: Path) -> None:
    """Policy and flows; denied packets are dropped without an answer, since it is the verdict that counts."""
    while _connected:
        _connected.pop().close()
    bed.reset()
    bed.apply(path.policy())
    bed.settings.prepare(NatPorts(1024, 60000))
    bed.settings.change(refusals_per_second=0)
    for first in path.establish:
        Talk.established(bed, tier, first)
    path.finish(bed)


def _datagram(addresses: tuple[str, str], port: int = 80) -> Packet:
    return from_client(Udp(40000, port, bytes(18)), *addresses)


def _openings(count: int, source: str, destination: str, *, port: int) -> Iterator[bytes]:
    first = from_client(Tcp(0, port), source, destination)
    for number in range(count):
        client = first.source + number // 50000
        yield first.but(source=client, transport__source=number % 50000 + 1).build()


def _gateway() -> Plan:
    return plan(service("lan", "10.1.0.0/16"), service("far", "10.2.0.2"), mapping("out", "lan", "far"))


def _sides(bed: Bed) -> None:
    bed.know_interface(INSIDE, native=True, role=layouts.ROLE_INSIDE)
    bed.know_interface(OUTSIDE, native=True, role=layouts.ROLE_OUTSIDE)


def _blocking() -> Plan:
    block = Block("10.1.0.2")
    return replace(plan(*OPEN), blocks=compile_blocks((block,), (), {}, {}, NOW, BlockMemo()).blocks)


def _limiting() -> Plan:
    return replace(plan(*OPEN), limits=(rate("own", "source", packets_per_second=1, burst=4),))


def _lead_back(bed: Bed, first: Packet) -> None:
    """Enter a flow for what comes out, which makes the packet what it was, and is for our interface again."""
    table, asked = bed.maps["flows"], flow_key(first)
    raw = table.get(asked)
    assert raw is not None
    flow = layouts.read_flow(raw)._replace(next_hop=INSIDE)
    ends = layouts.read_key(asked)
    leaving = layouts.FLOW_KEY.struct.pack(
        flow.source, flow.destination, flow.source_port, flow.destination_port, first.protocol
    )
    back = flow._replace(source=ends[0], destination=ends[1], source_port=ends[2], destination_port=ends[3])
    for key, entry in ((asked, flow), (leaving, back)):
        table.set(key, layouts.FLOW.struct.pack(*entry))


def _connect(bed: Bed, first: Packet) -> None:
    """Have the host be connected with the client of a packet, until something else is prepared."""
    tcp, own = first.transport, bed.host.call(socket.socket)
    assert isinstance(tcp, Tcp)
    enter_repair(own)
    own.bind((V4[1], tcp.destination))
    own.connect((V4[0], tcp.source))
    _connected.append(own)


def _spend(bed: Bed, datagram: Packet) -> None:
    """Until nothing is left; what establishing the flow took counts as well."""
    for _ in counting():
        bed.counters.difference()
        if bed.send("tc", datagram).reason is Reason.RATE_LIMITED:
            return


def _join(bed: Bed, first: Packet) -> None:
    """Make a handed-off tunnel of an established flow, whose numbers are moved."""
    side: dict[str, Any] = {"announced": 7, "expected": 9, "least": 0, "most": 1 << 31}
    client, backend = (Side(sequence=moved, timestamp=moved, **side) for moved in (0x1234, 0x9000_0000))
    asked = flow_key(first)
    raw = bed.maps["flows"].get(asked)
    assert raw is not None
    flow = layouts.read_flow(raw)
    bed.maps["splices"].set(layouts.U32.pack(_PLACE), Splice(flow.id, client, backend, False).pack())
    for key in (asked, flow.other_key(layouts.TCP)):
        raw = bed.maps["flows"].get(key)
        assert raw is not None
        entry = layouts.read_flow(raw)
        entry = entry._replace(flags=entry.flags | layouts.FLAG_SPLICED, splice=_PLACE)
        bed.maps["flows"].set(key, layouts.FLOW.struct.pack(*entry))
