"""`python -m benchmarks.classify`: the price of first packets, by the number of mappings and prefixes.

Traffic in transit: every mapping is between two services of its own, each with a prefix of its own, on ports
that many share. Packets are single calls as in `benchmarks.packet`, each by another mapping, so nothing is
in a cache because it was just asked for. Every size has programs and maps of its own, and they take turns
packet by packet: what else the machine does, and what it leaves in the caches, is the same for all.
"""

import argparse
import random
import statistics
import sys
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_network

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.packet import TIERS, nothing
from benchmarks.report import PAGE, write
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.programs import Program
from marchproxy.model.entities import Mapping, Service
from marchproxy.model.errors import MarchproxyError
from rig import Rig
from tests.bpf.bed import INSIDE, OUTSIDE, Bed, Runner, Tier, inside
from tests.bpf.packets import Tcp
from tests.bpf.talk import Talk, from_client
from tests.policy.build import mapping, plan, service

SIZES = (10, 1_000, 10_000)
GOAL = 2.0
"""The largest may cost at most so many times what the smallest does."""
PORTS = (22, 53, 80, 123, 443, 993, 5432, 8080, "8000-8100", "1-1024")
_CLIENTS, _SERVERS = ip_network("10.64.0.0/11"), ip_network("10.128.0.0/11")
_NOTHING = 0
"""Among sizes: the program that does nothing."""
_WIDTH = 256
"""Addresses between the prefixes of two services; the prefixes are /24 to /32."""


def policy(count: int) -> Iterator[Service | Mapping]:
    """`count` mappings between twice as many services."""
    for number in range(count):
        length = 24 + number % 9
        for name, network in (("c", _CLIENTS), ("s", _SERVERS)):
            yield service(f"{name}{number}", f"{network.network_address + number * _WIDTH}/{length}")
        ports = str(PORTS[number % len(PORTS)])
        yield mapping(f"m{number}", f"c{number}", f"s{number}", ports=ports)


def opening(number: int, port: int) -> bytes:
    """The first packet of a flow that mapping `number` allows."""
    asked = str(PORTS[number % len(PORTS)]).split("-")[0]
    return from_client(
        Tcp(port, int(asked)),
        str(_CLIENTS.network_address + number * _WIDTH),
        str(_SERVERS.network_address + number * _WIDTH),
    ).build()


def openings(count: int, packets: int) -> Iterator[bytes]:
    """Packets that open flows, each by a mapping chosen at random."""
    dice = random.Random(1)
    for _ in range(packets):
        yield opening(dice.randrange(count), dice.randrange(1024, 65536))


def prepare(bed: Bed, count: int) -> None:
    """The policy in force, between an inside and an outside."""
    bed.reset()
    bed.know_interface(INSIDE, native=True, role=layouts.ROLE_INSIDE)
    bed.know_interface(OUTSIDE, native=True, role=layouts.ROLE_OUTSIDE)
    bed.apply(plan(*policy(count)))


def lay_ways(bed: Bed) -> None:
    """Routes to all clients and servers, by neighbours that are known."""
    bed.host.ip(f"route add {_CLIENTS} via 10.1.0.2", f"route add {_SERVERS} via 10.2.0.2")


def in_turn(
    programs: dict[int, Program], tier: Tier, ifindex: int, frames: dict[int, list[bytes]]
) -> dict[int, float]:
    """The median of single runs of each program, which take turns frame by frame."""
    runners = {count: Runner(program, tier) for count, program in programs.items()}
    taken: dict[int, list[int]] = {count: [] for count in programs}
    for at in range(len(next(iter(frames.values())))):
        for count, runner in runners.items():
            taken[count].append(runner.duration(frames[count][at], ifindex))
    return {count: statistics.median(each) for count, each in taken.items()}


def costs(beds: dict[int, Bed], tier: Tier, packets: int) -> Iterator[tuple[str, int, float]]:
    """Of a first packet and of one of an established flow, for each size."""
    opened, kept = {}, {}
    for count, bed in beds.items():
        prepare(bed, count)
        talk = Talk.established(bed, tier, from_client(Tcp(40000, 53), "10.64.1.0", "10.128.1.0"))
        opened[count] = list(openings(count, packets))
        kept[count] = [talk.asks.but(transport__flags="A", transport__acknowledgement=5001).build()] * packets
    with closing(nothing(tier)) as empty:
        programs = {_NOTHING: empty} | {count: bed.programs[tier] for count, bed in beds.items()}
        ifindex = beds[SIZES[0]].ifindex[INSIDE]
        for what, frames in (("first packet", opened), ("established flow", kept)):
            found = in_turn(programs, tier, ifindex, {_NOTHING: frames[SIZES[0]]} | frames)
            yield from ((what, count, found[count] - found[_NOTHING]) for count in beds)


def measure(packets: int, rounds: int) -> dict[tuple[Tier, str, int], float]:
    """The median over rounds."""
    found: dict[tuple[Tier, str, int], list[float]] = {}
    with Rig() as rig, inside(rig.middle):
        beds = {count: Bed(rig) for count in SIZES}
        lay_ways(beds[SIZES[0]])
        for _ in range(rounds):
            for tier in TIERS:
                for what, count, cost in costs(beds, tier, packets):
                    found.setdefault((tier, what, count), []).append(cost)
    return {key: statistics.median(each) for key, each in found.items()}


def markdown(figures: dict[tuple[Tier, str, int], float], facts: dict[str, str]) -> str:
    """The table for docs/PERFORMANCE.md."""
    lines = ["| nanoseconds a packet | " + " | ".join(f"{count:,} mappings" for count in SIZES) + " |"]
    lines.append("|---" * (1 + len(SIZES)) + "|")
    for tier, what in dict.fromkeys((tier, what) for tier, what, _ in figures):
        cells = " | ".join(f"{figures[tier, what, count]:.0f}" for count in SIZES)
        lines.append(f"| {what}, {tier.upper()} | {cells} |")
    lines += ["", f"{facts['date']}, kernel {facts['kernel']}, {facts['processor']}."]
    return "\n".join(lines)


def show(figures: dict[tuple[Tier, str, int], float], console: Console) -> None:
    """The table, and how flat it is."""
    table = Table("nanoseconds a packet", *(f"{count:,} mappings" for count in SIZES))
    for tier, what in dict.fromkeys((tier, what) for tier, what, _ in figures):
        table.add_row(f"{what}, {tier.upper()}", *(f"{figures[tier, what, count]:.0f}" for count in SIZES))
    console.print(table)
    for tier in TIERS:
        ratio = figures[tier, "first packet", SIZES[-1]] / figures[tier, "first packet", SIZES[0]]
        verdict = "met" if ratio <= GOAL else "MISSED"
        console.print(
            f"{tier.upper()}: {SIZES[-1]:,} mappings cost {ratio:.2f} of {SIZES[0]}, goal {GOAL} {verdict}"
        )


def main() -> int:
    """Exit code 1 where nothing could be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classify", description=__doc__)
    parser.add_argument("--packets", type=int, default=2000, help="a round, %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="%(default)s")
    parser.add_argument("--write", action="store_true", help="put the table into docs/PERFORMANCE.md")
    options = parser.parse_args()
    try:
        figures = measure(options.packets, options.rounds)
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    show(figures, Console())
    if options.write:
        write(PAGE, "classify", markdown(figures, machine.facts()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
