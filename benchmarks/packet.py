"""`python -m benchmarks.packet`: what one packet costs in the kernel's programs, in nanoseconds.

Measured twice, and each time a program that does nothing is measured the same way and taken off:

* Single calls (BPF_PROG_TEST_RUN, one run each, the median): the path alone, with the processor fresh from a
  system call. Repeated runs would be cheaper and wrong: a program that rewrites is fed its own output.
* Live frames (a packet socket at the far end of a veth link, the kernel's run-time statistics): what it costs
  with everything that the rest of the kernel does to the caches in between.

The bed is that of the packet tests (`tests/bpf/bed.py`).
"""

import argparse
import ctypes as ct
import socket
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.report import PAGE, write
from marchproxy.dataplane.kernel.libbpf import library
from marchproxy.dataplane.kernel.links import attach_tc, attach_xdp
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.kernel.programs import Program, ProgramType
from marchproxy.dataplane.kernel.testrun import run_statistics
from marchproxy.model.errors import MarchproxyError
from rig import Rig
from tests.bpf.bed import INSIDE, Bed, Runner, Tier, inside
from tests.bpf.packets import Packet, Tcp, Udp
from tests.bpf.policies import OPEN
from tests.bpf.talk import Talk, from_client
from tests.policy.build import plan

TIERS: tuple[Tier, ...] = ("tc", "xdp")
GOALS = {"tc": 150, "xdp": 100}
"""Nanoseconds for a packet of an established flow."""
_DO_NOTHING = {
    # `r0 = TC_ACT_OK` or `r0 = XDP_PASS`, `exit`
    "tc": (ProgramType.SCHED_CLS, bytes.fromhex("b7000000000000009500000000000000")),
    "xdp": (ProgramType.XDP, bytes.fromhex("b7000000020000009500000000000000")),
}


@dataclass(frozen=True, slots=True)
class Path:
    """A way through the pipeline."""

    title: str
    frames: Sequence[bytes]
    establish: tuple[Packet, ...] = ()
    """Flows that must be there."""


def paths(count: int) -> Iterator[Path]:
    """What is measured; new flows take as many frames as packets are sent."""
    for version, addresses in ((4, ("10.1.0.2", "10.1.0.1")), (6, ("fd01::2", "fd01::1"))):
        datagram = from_client(Udp(40000, 80, bytes(18)), *addresses)
        yield Path(f"established flow, IPv{version}", [datagram.build()], (datagram,))
    opening = from_client(Tcp(0, 80))
    yield Path(
        "new flow",
        [
            opening.but(source=opening.source + number // 50000, transport__source=number % 50000 + 1).build()
            for number in range(count)
        ],
    )
    through = from_client(Udp(40000, 53, bytes(18)), "10.1.0.2", "10.2.0.2")
    yield Path("denied", [through.build()])
    yield Path("left to the host", [from_client(Tcp(40000, 22, "A")).build()])


def prepare(bed: Bed, tier: Tier, path: Path) -> None:
    """Policy and flows; denied packets are dropped without an answer, since it is the verdict that counts."""
    bed.reset()
    bed.apply(plan(*OPEN))
    bed.settings.prepare(NatPorts(1024, 60000))
    bed.settings.change(refusals_per_second=0)
    for first in path.establish:
        Talk.established(bed, tier, first)


def nothing(tier: Tier) -> Program:
    """A program that passes every packet on."""
    kind, code = _DO_NOTHING[tier]
    fd = library().bpf_prog_load(kind, b"nothing", b"GPL", ct.c_char_p(code), len(code) // 8, None)
    if fd < 0:
        raise OSError(-fd, "cannot load a program of two instructions")
    return Program(fd, "nothing")


def single(bed: Bed, tier: Tier, program: Program, frames: Iterable[bytes]) -> float:
    """The median of single runs."""
    runner, ifindex = Runner(program, tier), bed.ifindex[INSIDE]
    return statistics.median(runner.duration(frame, ifindex) for frame in frames)


@contextmanager
def attached(bed: Bed, tier: Tier, program: Program) -> Iterator[None]:
    """`program` on the clients' link; with XDP also the TC program, which what is handed up goes to."""
    ifindex = bed.ifindex[INSIDE]
    links = [attach_tc(program if tier == "tc" else bed.programs["tc"], ifindex)]
    if tier == "xdp":
        links.append(attach_xdp(program, ifindex, generic=False))
    try:
        yield
    finally:
        for link in reversed(links):
            link.close()


def live(bed: Bed, tier: Tier, program: Program, frames: Iterable[bytes]) -> float:
    """The mean over frames that a client sends; the program runs in the sender's own system call."""
    wire = bed.rig.client.call(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0)
    with closing(wire), attached(bed, tier, program), run_statistics():
        wire.bind(("eth0", 0))
        before = program.run_statistics()
        for frame in frames:
            wire.send(frame)
        after = program.run_statistics()
    return (after.nanoseconds - before.nanoseconds) / (after.runs - before.runs)


METHODS: dict[str, Callable[[Bed, Tier, Program, Iterable[bytes]], float]] = {"single": single, "live": live}


def measure(bed: Bed, tier: Tier, path: Path, method: str, count: int, rounds: int) -> float:
    """The median over rounds, in each of which a program that does nothing is measured too and taken off."""
    differences = []
    for _ in range(rounds):
        prepare(bed, tier, path)
        with closing(nothing(tier)) as empty:
            full, bare = (
                METHODS[method](bed, tier, program, islice(cycle(path.frames), count))
                for program in (bed.programs[tier], empty)
            )
        differences.append(full - bare)
    return statistics.median(differences)


def show(costs: dict[tuple[str, Tier, str], float]) -> Table:
    """The table."""
    columns = [(tier, method) for tier in TIERS for method in METHODS]
    table = Table("nanoseconds a packet", *(f"{tier.upper()} {method}" for tier, method in columns))
    for title in dict.fromkeys(title for title, _, _ in costs):
        table.add_row(title, *(f"{costs[title, *column]:.0f}" for column in columns))
    return table


def markdown(costs: dict[tuple[str, Tier, str], float], facts: dict[str, str]) -> str:
    """The table for docs/PERFORMANCE.md."""
    columns = [(tier, method) for tier in TIERS for method in METHODS]
    lines = [
        "| nanoseconds a packet | " + " | ".join(f"{tier.upper()}, {how}" for tier, how in columns) + " |"
    ]
    lines.append("|---" * (1 + len(columns)) + "|")
    for title in dict.fromkeys(title for title, _, _ in costs):
        cells = " | ".join(f"{costs[title, *column]:.0f}" for column in columns)
        lines.append(f"| {title} | {cells} |")
    lines += ["", f"{facts['date']}, kernel {facts['kernel']}, {facts['processor']}."]
    return "\n".join(lines)


def main() -> int:
    """Print the table, and how established flows did against their goals."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packet", description=__doc__)
    parser.add_argument("--packets", type=int, default=5000, help="a round, %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="%(default)s")
    parser.add_argument("--write", action="store_true", help="put the table into docs/PERFORMANCE.md")
    options = parser.parse_args()
    try:
        with Rig() as rig, inside(rig.middle):
            bed = Bed(rig)
            costs = {
                (path.title, tier, method): measure(bed, tier, path, method, options.packets, options.rounds)
                for path in paths(options.packets)
                for tier in TIERS
                for method in METHODS
            }
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    console = Console()
    console.print(show(costs))
    for tier in TIERS:
        reached = max(
            cost
            for (title, of, method), cost in costs.items()
            if (of, method) == (tier, "single") and title.startswith("established")
        )
        console.print(f"{tier.upper()}: {reached:.0f} ns by single calls, goal {GOALS[tier]}")
    if options.write:
        write(PAGE, "packet", markdown(costs, machine.facts()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
