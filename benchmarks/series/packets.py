"""Series of what one packet costs, by single calls as in `benchmarks.packet`.

Each packet is of another conversation, so that it finds what the tables hold where it lies, and not where the
last packet left it. Before each figure of flows the caches are emptied as far as one program can.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import batched

from benchmarks import classify
from benchmarks.block import clean_cases, compiled, contents_of, mixed, price
from benchmarks.packet import TIERS, nothing, single
from benchmarks.packetpaths import Path, prepare
from benchmarks.series.results import Point, Run
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import BATCH
from marchproxy.model.reason import Reason
from marchproxy.policy.blocks import NOTHING_BLOCKED
from rig import Rig
from tests.bpf.bed import Bed, Tier, flow_key, inside
from tests.bpf.packets import Packet, Udp
from tests.bpf.policies import OPEN
from tests.bpf.talk import from_client
from tests.policy.build import plan

type Report = Callable[[str], None]
PACKETS = 2_000
"""Of each figure."""
FLOWS = (1, 1_000, 100_000, 1_000_000)
BLOCKED = (0, 1_000, 100_000, 1_000_000)
EVICTED = 128 << 20
"""Bytes that are written to empty the caches: more than they hold."""
_PORTS = 50_000
"""Of each client."""
_SOURCE_PORT = 32
"""Where it is in `mp_flow`."""


@dataclass(frozen=True, slots=True)
class PacketSeries:
    """One chart."""

    name: str
    title: str
    across: str
    up: str
    measure: Callable[[Run, Report], None]


def datagram(number: int) -> Packet:
    """The question of conversation `number`."""
    source = f"10.1.{number // _PORTS}.2"
    return from_client(Udp(1024 + number % _PORTS, 80, bytes(18)), source, "10.1.0.1")


def entries(model: bytes, numbers: Iterable[int], fresh: int) -> Iterator[tuple[bytes, bytes]]:
    """Both directions of conversations like `model`, whose ways out were looked up at `fresh` (ns)."""
    flow = layouts.read_flow(model)._replace(route_checked=fresh)
    mapped, asked, port = bytes(10) + b"\xff\xff", bytes((10, 1, 0, 1)), (80).to_bytes(2)
    pack_key, pack_flow = layouts.FLOW_KEY.struct.pack, layouts.FLOW.struct.pack
    towards, back = pack_flow(*flow), pack_flow(*flow._replace(flags=flow.flags | layouts.FLAG_REPLY))
    for number in numbers:
        client = mapped + bytes((10, 1, number // _PORTS, 2))
        source = (1024 + number % _PORTS).to_bytes(2)
        translated = (4096 + number % _PORTS).to_bytes(2)
        yield (
            pack_key(client, mapped + asked, source, port, layouts.UDP),
            towards[:_SOURCE_PORT] + translated + towards[_SOURCE_PORT + 2 :],
        )
        # Which source of ours it has does not matter here: one for each 50,000 keeps the keys apart.
        yield (
            pack_key(
                flow.destination, mapped + bytes((10, 2, number // _PORTS, 1)), port, translated, layouts.UDP
            ),
            back,
        )


def fill(bed: Bed, model: bytes, numbers: Iterable[int]) -> None:
    """Write the entries of these conversations."""
    table = bed.maps["flows"]
    for some in batched(entries(model, numbers, time.monotonic_ns()), BATCH):
        table.update_many(list(some))


def flows(run: Run, report: Report) -> None:
    """A packet of an established flow, one of so many chosen at random."""
    first = datagram(0)
    with Rig() as rig, inside(rig.middle):
        bed = Bed(rig, {"flows": 2 * max(FLOWS) + 4096, "opening": 4096})
        dice = random.Random(1)
        for step in FLOWS:
            prepare(bed, "xdp", Path("", Reason.FORWARDED, [], (first,)))
            model = bed.maps["flows"].get(flow_key(first))
            assert model is not None
            fill(bed, model, range(step))
            for number in range(run.rounds):
                for tier in TIERS:
                    asked = [dice.randrange(step) for _ in range(PACKETS)]
                    cost = _of_flows(bed, tier, model, asked)
                    _note(run, report, Point("flows", tier.upper(), step, number, cost / 1e9))


def _of_flows(bed: Bed, tier: Tier, model: bytes, asked: Sequence[int]) -> float:
    """Nanoseconds of a packet of one of these conversations, whose ways out are known."""
    frames = [datagram(number).build() for number in asked]
    with closing(nothing(tier)) as empty:
        bare = single(bed, tier, empty, frames)
    fill(bed, model, dict.fromkeys(asked))
    # What was written now is in the caches, and what other traffic would have put there is not.
    bytes(EVICTED)
    # Packets are dated by a clock that is up to a tick late; a way out that is newer than its packet is none.
    time.sleep(0.02)
    return single(bed, tier, bed.programs[tier], frames) - bare


def blocks(run: Run, report: Report) -> None:
    """What so many blocked prefixes add to a packet that none of them blocks."""
    chance = random.Random(42)
    with Rig() as rig, inside(rig.middle):
        bed = Bed(rig)
        for step in BLOCKED:
            held = compiled(contents_of(mixed(step, chance))) if step else NOTHING_BLOCKED
            for tier in TIERS:
                bed.reset()
                bed.apply(plan(*OPEN))
                bed.settings.change(refusals_per_second=0)
                for case in clean_cases(bed, tier, held, PACKETS, chance):
                    for number in range(run.rounds):
                        line = f"{tier.upper()}, {case.title.removeprefix('clean, ')}"
                        cost = price(bed, tier, held, case.frames) / 1e9
                        _note(run, report, Point("blocks", line, step, number, cost))


def first_packets(run: Run, report: Report) -> None:
    """A packet that opens a flow in transit, and one of a flow that is there, by mappings."""
    for number in range(run.rounds):
        figures = classify.measure(PACKETS // 4, 1)
        for (tier, what, step), cost in figures.items():
            _note(run, report, Point("first-packets", f"{what}, {tier.upper()}", step, number, cost / 1e9))


def _note(run: Run, report: Report, point: Point) -> None:
    run.points.append(point)
    said = f"{point.line}  {point.step}: {1e9 * point.value:.0f} ns"
    report(f"{point.series}  round {point.round + 1}/{run.rounds}  {said}")


SERIES = (
    PacketSeries("flows", "A packet of an established flow", "flows in the table", "ns a packet", flows),
    PacketSeries(
        "blocks",
        "What block lists add to a packet that they do not block",
        "blocked prefixes",
        "ns a packet",
        blocks,
    ),
    PacketSeries("first-packets", "Packets in transit", "mappings", "ns a packet", first_packets),
)
