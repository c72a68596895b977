"""`python -m benchmarks.packet`: what one packet costs in the kernel's programs, in nanoseconds.

Measured in three ways, and each time a program that does nothing is measured the same way and taken off:

* Single calls (BPF_PROG_TEST_RUN, one run each, the median): the path alone, with the processor fresh from a
  system call. Repeated runs would be cheaper and wrong: a program that rewrites is fed its own output.
* Repeated runs, where that is right: of a flow whose packet comes out as one of a flow that leads back. The
  program alone, with everything that it needs in the nearest caches.
* Live frames (a packet socket at the far end of a veth link, the kernel's run-time statistics): what it costs
  with everything that the rest of the kernel does to the caches in between.

The bed is that of the packet tests (`tests/bpf/bed.py`), the ways that packets go are in `packetpaths`.

--check compares with what is kept in packet-baseline.json: of single and repeated calls, how many times as
long as the program that does nothing each way takes. Machines differ less in that than in nanoseconds.
"""

import argparse
import ctypes as ct
import json
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import batched, cycle, islice
from pathlib import Path as File
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.packetpaths import Path, paths, prepare
from benchmarks.report import MORE_PAGE, write
from marchproxy.dataplane.kernel.libbpf import library
from marchproxy.dataplane.kernel.links import attach_tc, attach_xdp
from marchproxy.dataplane.kernel.programs import Program, ProgramType
from marchproxy.dataplane.kernel.testrun import run_statistics
from marchproxy.model.errors import MarchproxyError
from rig import Rig
from tests.bpf.bed import INSIDE, Bed, Runner, Tier, inside

TIERS: tuple[Tier, ...] = ("tc", "xdp")
GOALS = {"tc": 150, "xdp": 100}
"""Nanoseconds for a packet of an established flow."""
REPEATED = 200
"""Runs, of a packet whose hop limit allows 254."""
BASELINE = File(__file__).with_name("packet-baseline.json")
CHECKED = ("single", "repeated")
"""Methods: live frames depend on too much else."""
TOLERATED = 1.5
"""How many times its ratio of the baseline a way may have."""
_DO_NOTHING = {
    # `r0 = TC_ACT_OK` or `r0 = XDP_PASS`, `exit`
    "tc": (ProgramType.SCHED_CLS, bytes.fromhex("b7000000000000009500000000000000")),
    "xdp": (ProgramType.XDP, bytes.fromhex("b7000000020000009500000000000000")),
}


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
    return median(runner.duration(frame, ifindex) for frame in frames)


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


def repeated(bed: Bed, tier: Tier, program: Program, frames: Iterable[bytes]) -> float:
    """The median of means over `REPEATED` runs of one packet; whole parts of so many frames."""
    runner, ifindex = Runner(program, tier, REPEATED), bed.ifindex[INSIDE]
    return median(runner.duration(some[0], ifindex) for some in batched(frames, REPEATED))


METHODS: dict[str, Callable[[Bed, Tier, Program, Iterable[bytes]], float]] = {
    "single": single,
    "repeated": repeated,
    "live": live,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one way in one tier, by one method: figures of each round, in nanoseconds."""

    full: tuple[float, ...]
    bare: tuple[float, ...]
    """Of the program that does nothing, in the same round."""

    @property
    def own(self) -> float:
        """What the pipeline itself takes: the median over rounds."""
        return median(full - bare for full, bare in zip(self.full, self.bare, strict=True))

    @property
    def ratio(self) -> float:
        """How many times the program that does nothing: the least of all rounds, as noise only adds."""
        return min(self.full) / min(self.bare)


type Costs = Mapping[tuple[str, Tier, str], Cost]
"""By title, tier and method."""


def measure(bed: Bed, tier: Tier, path: Path, method: str, count: int, rounds: int) -> Cost:
    """A figure for each round, and of a program that does nothing."""
    taken = []
    for _ in range(rounds):
        prepare(bed, tier, path)
        with closing(nothing(tier)) as empty:
            full, bare = (
                METHODS[method](bed, tier, program, islice(cycle(path.frames), count))
                for program in (bed.programs[tier], empty)
            )
        taken.append((full, bare))
    full_figures, bare_figures = zip(*taken, strict=True)
    return Cost(full_figures, bare_figures)


def ratios(costs: Costs) -> dict[str, dict[str, float]]:
    """Of what a check measures, by title and tier."""
    found: dict[str, dict[str, float]] = {}
    for (title, tier, method), cost in costs.items():
        if method in CHECKED:
            found.setdefault(f"{title}, {method}", {})[tier] = round(cost.ratio, 2)
    return found


def regressions(
    found: Mapping[str, Mapping[str, float]], kept: Mapping[str, Mapping[str, float]]
) -> Iterator[str]:
    """A line for each way that has become dearer than is tolerated, or that the baseline does not know."""
    for title, tiers in found.items():
        for tier, ratio in tiers.items():
            before = kept.get(title, {}).get(tier)
            if before is None:
                yield f"{title}, {tier.upper()}: the baseline does not know it; write it with --baseline"
            elif ratio > TOLERATED * before:
                yield f"{title}, {tier.upper()}: {ratio:.1f} times nothing, {before:.1f} in the baseline"


def show(costs: Costs) -> Table:
    """The table."""
    columns = _columns(costs)
    table = Table("nanoseconds a packet", *(f"{tier.upper()} {method}" for tier, method in columns))
    for title in dict.fromkeys(title for title, _, _ in costs):
        table.add_row(title, *(_cell(costs, (title, *column)) for column in columns))
    return table


def _cell(costs: Costs, place: tuple[str, Tier, str]) -> str:
    return f"{costs[place].own:.0f}" if place in costs else "-"


def _columns(costs: Costs) -> list[tuple[Tier, str]]:
    return list(dict.fromkeys((tier, method) for _, tier, method in costs))


def markdown(costs: Costs, facts: dict[str, str]) -> str:
    """The table for docs/PERFORMANCE_SERIES.md."""
    columns = _columns(costs)
    lines = [
        "| nanoseconds a packet | " + " | ".join(f"{tier.upper()}, {how}" for tier, how in columns) + " |"
    ]
    lines.append("|---" * (1 + len(columns)) + "|")
    for title in dict.fromkeys(title for title, _, _ in costs):
        cells = " | ".join(_cell(costs, (title, *column)) for column in columns)
        lines.append(f"| {title} | {cells} |")
    lines += ["", f"{facts['date']}, kernel {facts['kernel']}, {facts['processor']}."]
    return "\n".join(lines)


def goals(costs: Costs) -> Iterator[str]:
    """How established flows did against their goals, by each method."""
    for tier, method in _columns(costs):
        reached = max(
            cost.own
            for (title, *column), cost in costs.items()
            if column == [tier, method] and title.startswith("established")
        )
        yield f"{tier.upper()}, {method}: {reached:.0f} ns, goal {GOALS[tier]}"


def measured(packets: int, rounds: int, methods: Iterable[str]) -> Costs:
    """All ways in all tiers."""
    with Rig() as rig, inside(rig.middle):
        bed = Bed(rig)
        return {
            (path.title, tier, method): measure(bed, tier, path, method, packets, rounds)
            for path in paths(packets)
            for tier in TIERS
            for method in methods
            if path.circular or method != "repeated"
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and how established flows did; exit code 1 where --check finds something dearer."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.packet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--packets", type=int, default=5000, help="a round, %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="%(default)s")
    parser.add_argument("--write", action="store_true", help="put the table into docs/PERFORMANCE_SERIES.md")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--check", action="store_true", help=f"compare ratios with {BASELINE.name}")
    which.add_argument("--baseline", action="store_true", help=f"write them into {BASELINE.name}")
    options = parser.parse_args(arguments)
    ratios_only = options.check or options.baseline
    try:
        costs = measured(options.packets, options.rounds, CHECKED if ratios_only else METHODS)
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    console = Console()
    console.print(show(costs))
    for line in goals(costs):
        console.print(line)
    if options.write:
        write(MORE_PAGE, "packet", markdown(costs, machine.facts()))
    if options.baseline:
        BASELINE.write_text(json.dumps(ratios(costs), indent=1) + "\n")
    if not options.check:
        return 0
    dearer = list(regressions(ratios(costs), json.loads(BASELINE.read_text())))
    for line in dearer:
        print(f"dearer: {line}", file=sys.stderr)
    return 1 if dearer else 0


if __name__ == "__main__":
    sys.exit(main())
