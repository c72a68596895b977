"""Series of traffic between client and server through each contender, as `make bench` has it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from benchmarks.bed import DATAGRAMS, PINGPONG, STREAM, Bed
from benchmarks.compare import turned
from benchmarks.contenders import Contender, MarchProxy, MarchProxyXDP, Nftables, Routing
from benchmarks.policies import large
from benchmarks.processor import usage_during
from benchmarks.series.results import Point, Run
from benchmarks.workloads import new_connections
from marchproxy.model.errors import MarchproxyError
from rig.network import LISTEN4

type Measure = Callable[[Bed, str, int, float], float]
"""Bed, target address, step, seconds: pieces of work a second."""
type Report = Callable[[str], None]
PATIENCE = 60.0
"""Seconds for a daemon with a large policy to serve; to write that policy takes more."""


@dataclass(frozen=True, slots=True)
class Stand:
    """A contender, and the steps at which it is measured while it stands."""

    contender: Contender
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One pair of charts: work a second, and what processors do for a piece of it."""

    name: str
    title: str
    across: str
    """What is varied, with its unit."""
    unit: str
    scale: float
    """What a figure is divided by for display in `unit`."""
    work: str
    """What processor time is shown for, with its unit."""
    work_scale: float
    stands: Callable[[Bed], Sequence[Stand]]
    measure: Measure
    prepare: Callable[[Bed, int], None] = lambda _bed, _step: None
    """What is done before each figure of a step, and is no part of it."""


class MappingsMarchProxy(MarchProxy):
    """With so many mappings at 1,000 listeners beside those of the bed."""

    patience = PATIENCE

    def __init__(self, bed: Bed, count: int) -> None:
        """Write its configuration."""
        self.name = f"marchproxy-tc-{count}"  # type: ignore[misc]
        super().__init__(bed)
        file = self.appliance.state.parent / "large.json"
        file.write_text(json.dumps(large(self.appliance.json("export"), count)))
        words = [*self.appliance.command, "apply", "-f", str(file), "--yes"]
        bed.rig.middle.run(words, env=self.appliance.env, timeout=4 * PATIENCE)


class MappingsNftables(Nftables):
    """As many translations in a map, as netfilter's documentation advises, before those of the bed."""

    title: ClassVar[str] = "nftables NAT, one map"

    def __init__(self, bed: Bed, count: int) -> None:
        """Prepare what only needs preparing once."""
        super().__init__(bed)
        self._count = count

    def _rules(self) -> str:
        elements = ", ".join(
            f"{LISTEN4} . {20000 + number % 40000} : 198.18.{number >> 8 & 255}.{number & 255}"
            for number in range(self._count)
        )
        return f"""{super()._rules()}
            table ip bench {{
                map others {{ type ipv4_addr . inet_service : ipv4_addr; elements = {{ {elements} }}
                }}
                chain others {{ type nat hook prerouting priority dstnat - 1;
                    dnat to ip daddr . tcp dport map @others
                }}
            }}
        """


def exchange(sockets: int, in_flight: int = 1, *, udp: bool = False) -> Measure:
    """Messages of `step` bytes."""

    def measure(bed: Bed, target: str, step: int, seconds: float) -> float:
        port = DATAGRAMS if udp else PINGPONG
        said = bed.exchange(target, port, seconds, sockets=sockets, in_flight=in_flight, size=step)
        return float((1 + udp) * said["answers"] / said["seconds"])

    return measure


def at_once(bed: Bed, target: str, step: int, seconds: float) -> float:
    """One small message on each of `step` connections."""
    said = bed.exchange(target, PINGPONG, seconds, sockets=step, in_flight=1)
    return float(said["answers"] / said["seconds"])


def streams(bed: Bed, target: str, step: int, seconds: float) -> float:
    """Bits a second of `step` TCP streams from the client together."""
    said = bed.iperf(target, ceil(seconds), "--parallel", str(step))
    return float(said["end"]["sum_received"]["bits_per_second"])


def connections(bed: Bed, target: str, _step: int, seconds: float) -> float:
    """HTTP requests a second with a connection for each."""
    return new_connections(bed, target, ceil(seconds))


def all_steps(kinds: Sequence[type[Contender]], *steps: int) -> Callable[[Bed], Sequence[Stand]]:
    """Each contender stands once in a round, and is measured at every step."""
    return lambda bed: [Stand(kind(bed), steps) for kind in kinds]


def with_mappings(*steps: int) -> Callable[[Bed], Sequence[Stand]]:
    """A contender for each number of mappings."""

    def stands(bed: Bed) -> Sequence[Stand]:
        made = [(MappingsMarchProxy(bed, step), MappingsNftables(bed, step), step) for step in steps]
        return [Stand(contender, (step,)) for *both, step in made for contender in both]

    return stands


_IN_KERNEL: tuple[type[Contender], ...] = (Routing, MarchProxy, Nftables)
_PACKETS: tuple[type[Contender], ...] = (*_IN_KERNEL, MarchProxyXDP)
SERIES = (
    Series(
        *("messages", "TCP messages and answers on 8 connections", "bytes a message", "k/s", 1e3),
        *("µs/answer", 1e6, all_steps(_IN_KERNEL, 64, 1024, 8192, 65536), exchange(8)),
    ),
    Series(
        *("datagrams", "UDP datagrams, 64 in flight", "bytes a datagram", "k/s", 1e3),
        *("µs/packet", 1e6, all_steps(_PACKETS, 64, 512, 1400), exchange(4, 16, udp=True)),
    ),
    Series(
        *("connections", "Messages of 64 bytes, one on each connection", "connections", "k/s", 1e3),
        *("µs/answer", 1e6, all_steps(_PACKETS, 1, 8, 64, 512), at_once),
    ),
    Series(
        *("streams", f"TCP streams up (port {STREAM.number})", "streams", "Gbit/s", 1e9),
        *("ms/GB", 8e12, all_steps(_IN_KERNEL, 1, 4, 16), streams),
    ),
    Series(
        *("mappings", "HTTP requests, a new connection for each", "mappings", "k/s", 1e3),
        *("µs/request", 1e6, with_mappings(10, 100, 1_000, 10_000), connections),
    ),
)


def measure(run: Run, bed: Bed, series: Series, report: Report) -> None:
    """All rounds of one series. What fails is named in the run, and does not end it."""
    try:
        stands = series.stands(bed)
    except MarchproxyError as error:
        run.failures.append(f"{series.name}: {error.message} {error.hint}".strip())
        report(run.failures[-1])
        return
    for number in range(run.rounds):
        for stand in turned(stands, number):
            label = f"{series.name}  round {number + 1}/{run.rounds}  {stand.contender.title}"
            try:
                with stand.contender.standing():
                    stand.contender.wait_ready()
                    for step in stand.steps:
                        point = _point(run, series, stand.contender, step, number)
                        run.points.append(point)
                        report(f"{label}  {step}: {_said(series, point)}")
            except MarchproxyError as error:
                run.failures.append(f"{label}: {error.message} {error.hint}".strip())
                report(run.failures[-1])


def _point(run: Run, series: Series, contender: Contender, step: int, number: int) -> Point:
    bed = contender.bed
    bed.forget()
    series.prepare(bed, step)
    value, used = usage_during(lambda: series.measure(bed, contender.target, step, run.seconds))
    # iperf3 and wrk take whole seconds.
    work = value * (ceil(run.seconds) if series.measure in (streams, connections) else run.seconds)
    each = (seconds / work for seconds in (used.busy, used.softirq, used.programs))
    return Point(series.name, contender.title, step, number, value, *each)


def _said(series: Series, point: Point) -> str:
    said = f"{point.value / series.scale:.1f} {series.unit}"
    return f"{said}  {point.busy * series.work_scale:.1f} {series.work}"
