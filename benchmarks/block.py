"""`python -m benchmarks.block`: what block lists cost, in nanoseconds a packet, by single calls.

* A clean packet: the same frames through the same program with nothing blocked and with a list, alternating;
  the median of the differences frame by frame. `same` is one conversation's packet again and again; `any` has
  another source and destination each time, none of them blocked, so that look-ups miss the caches.
* A blocked source: the whole XDP program until it drops, beside `xdp-filter`'s program (xdp-tools) with as
  many blocked addresses as it holds, ten thousand. Its dispatcher is left out, in its favour.
* How long a million prefixes take from the file to the kernel's image, and its size; and what the whole
  command takes beside a running daemon, for every form of file (`benchmarks.blockimport`).

Single calls (BPF_PROG_TEST_RUN, one run each), because repeated runs only measure warm caches.
"""

import argparse
import random
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.blockimport import GOAL_MEGABYTES, GOAL_SECONDS, Import, imports
from benchmarks.report import PAGE, write
from marchproxy.dataplane.kernel.blockimage import build_image
from marchproxy.dataplane.kernel.libbpf import possible_cpus
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.programs import Program
from marchproxy.model.address import IPAddress
from marchproxy.model.appliance import BlockList
from marchproxy.model.blockfile import read_blocks
from marchproxy.model.blocklist import BlockContents, name_of
from marchproxy.model.errors import MarchproxyError
from marchproxy.policy.blocks import NOTHING_BLOCKED, BlockMemo, Blocks, compile_blocks
from rig import Rig
from tests.bpf.bed import FROM_CLIENT, INSIDE, Bed, Runner, Tier, inside
from tests.bpf.packets import Udp, packet
from tests.bpf.policies import OPEN
from tests.bpf.talk import Talk, from_client
from tests.policy.build import plan

GOALS = {100_000: 50, 1_000_000: 100}
"""Nanoseconds for a clean packet, by entries of the list."""
XDP_FILTER = Path("/usr/lib/x86_64-linux-gnu/bpf/xdpfilt_alw_ip.o")
XDP_FILTER_HOLDS = 10_000
_SOURCE_FLAG = 1
"""MAP_FLAG_SRC of xdp-filter."""
MILLION = 1_000_000
_PUBLIC = (*range(1, 10), *range(11, 127), *range(128, 224))
"""First bytes of IPv4 addresses that packets can have, but for the bed's own."""
_LENGTHS = {4: (16, 20, 22, 24, 24, 24, 28, 32, 32, 32, 32, 32), 6: (29, 32, 40, 48, 48, 56, 64, 64, 128)}


type Rows = dict[str, dict[str, str]]
"""Cells by title and column."""


@dataclass(frozen=True, slots=True)
class Case:
    """Frames that pass a list."""

    title: str
    frames: Sequence[bytes]


def mixed(count: int, chance: random.Random) -> Iterator[str]:
    """Lines of a list: three of four IPv4, lengths as lists have them."""
    for _ in range(count):
        version = 4 if chance.random() < 0.75 else 6
        length = chance.choice(_LENGTHS[version])
        yield f"{_text(version, _random(chance, version), length)}/{length}\n"


def contents_of(lines: Iterator[str]) -> BlockContents:
    """A list without bad lines."""
    reading = read_blocks(lines, datetime.now(UTC))
    assert not reading.bad_lines
    return reading.contents


def compiled(contents: BlockContents) -> Blocks:
    """As a plan has it."""
    item = BlockList("list", name_of(contents.pack()), len(contents))
    return compile_blocks((), (item,), {item.sha256: contents}, {}, datetime.now(UTC), BlockMemo()).blocks


def clean_cases(bed: Bed, tier: Tier, blocks: Blocks, count: int, chance: random.Random) -> Iterator[Case]:
    """Packets that no entry of the list covers."""
    for version, addresses in ((4, ("10.1.0.2", "10.1.0.1")), (6, ("fd01::2", "fd01::1"))):
        first = from_client(Udp(40000, 80, bytes(18)), *addresses)
        bed.counters.difference()
        Talk.established(bed, tier, first)
        yield Case(f"clean, IPv{version}, same", [first.build()] * count)
        frames: list[bytes] = []
        while len(frames) < count:
            pair = [_address(version, _random(chance, version)) for _ in range(2)]
            if not any(blocks.find(each) for each in pair):
                # A time to live of one ends the way of a packet early, and always in the same place.
                source, destination = map(str, pair)
                frames.append(packet(source, destination, Udp(5, 5), link=FROM_CLIENT, ttl=1).build())
        yield Case(f"clean, IPv{version}, any", frames)


def price(bed: Bed, tier: Tier, blocks: Blocks, frames: Sequence[bytes]) -> float:
    """The median difference that the list makes to a frame."""
    runner, ifindex = Runner(bed.programs[tier], tier), bed.ifindex[INSIDE]
    policy = plan(*OPEN)
    taken = []
    for held in (NOTHING_BLOCKED, blocks, NOTHING_BLOCKED, blocks):
        bed.apply(replace(policy, blocks=held))
        taken.append([runner.duration(frame, ifindex) for frame in frames])
    without = map(min, taken[0], taken[2])
    return statistics.median(b - a for a, b in zip(without, map(min, taken[1], taken[3]), strict=True))


def drop_costs(bed: Bed, version: int, count: int, chance: random.Random) -> dict[str, float]:
    """Medians of whole runs that drop a blocked source, by program: of each frame the best of three."""
    sources = [_address(version, _random(chance, version)) for _ in range(XDP_FILTER_HOLDS)]
    own = "10.1.0.1" if version == 4 else "fd01::1"
    frames = [
        packet(str(chance.choice(sources)), own, Udp(5, 5), link=FROM_CLIENT).build() for _ in range(count)
    ]
    bed.apply(replace(plan(), blocks=compiled(contents_of(f"{source}\n" for source in sources))))
    ours = bed.programs["xdp"]
    with xdp_filter(sources) as theirs:
        programs: dict[str, Program] = {"MarchProxy": ours, "xdp-filter": theirs.programs["xdpfilt_alw_ip"]}
        runners = {name: Runner(program, "xdp") for name, program in programs.items()}
        for runner in runners.values():
            assert all(runner.run(frame, bed.ifindex[INSIDE])[0].name == "DROP" for frame in frames[:50])
        taken: dict[str, list[list[int]]] = {name: [[] for _ in frames] for name in programs}
        for _ in range(3):
            for at, frame in enumerate(frames):
                for name, runner in runners.items():
                    taken[name][at].append(runner.duration(frame, bed.ifindex[INSIDE]))
    return {name: statistics.median(map(min, each)) for name, each in taken.items()}


def xdp_filter(sources: Sequence[IPAddress]) -> BpfObject:
    """Its program for addresses where everything else is allowed, with these blocked as sources."""
    loaded = BpfObject.load(XDP_FILTER, pinned_maps=())
    table = loaded.maps["filter_ipv4" if sources[0].version == 4 else "filter_ipv6"]
    cell = _SOURCE_FLAG.to_bytes(8, sys.byteorder)
    for source in sources:
        table.set_percpu(source.packed, [cell] * possible_cpus())
    return loaded


def building(count: int, chance: random.Random) -> dict[str, str]:
    """Seconds and bytes from lines to an image."""
    lines = list(mixed(count, chance))
    facts = {}
    started = time.perf_counter()
    contents = contents_of(iter(lines))
    facts["read"] = f"{time.perf_counter() - started:.1f} s"
    started = time.perf_counter()
    blocks = compiled(contents)
    image = build_image(blocks.lists, [1])
    facts["merge and build"] = f"{time.perf_counter() - started:.1f} s"
    facts["stored"] = f"{len(contents.pack()) / len(contents):.1f} bytes an entry"
    facts["in the kernel"] = f"{len(image) / len(blocks.lists):.1f} bytes an entry"
    facts["entries"] = f"{len(blocks.lists)} of {count} (the others lie inside)"
    return facts


def _random(chance: random.Random, version: int) -> int:
    if version == 6:
        return 1 << 125 | chance.getrandbits(125)
    first: int = chance.choice(_PUBLIC)
    return first << 24 | chance.getrandbits(24)


def _address(version: int, number: int) -> IPAddress:
    return IPv4Address(number) if version == 4 else IPv6Address(number)


def _text(version: int, number: int, length: int) -> str:
    bits, family = (32, socket.AF_INET) if version == 4 else (128, socket.AF_INET6)
    return socket.inet_ntop(family, (number >> (bits - length) << (bits - length)).to_bytes(bits // 8))


def measure(bed: Bed, count: int, sizes: Sequence[int], say: Callable[[str], None]) -> Rows:
    """Everything: rows by title, cells by column."""
    chance = random.Random(42)
    rows: Rows = {}
    for size in sizes:
        say(f"a list of {size}")
        blocks = compiled(contents_of(mixed(size, chance)))
        for tier in ("tc", "xdp"):
            bed.reset()
            bed.apply(plan(*OPEN))
            bed.settings.change(refusals_per_second=0)
            for case in clean_cases(bed, tier, blocks, count, chance):
                cost = price(bed, tier, blocks, case.frames)
                rows.setdefault(f"{case.title}, {tier.upper()}", {})[f"{size:,} entries"] = f"{cost:.0f}"
    bed.reset()
    for version in (4, 6):
        say(f"drops, IPv{version}")
        with suppress(FileNotFoundError):
            for name, cost in drop_costs(bed, version, count, chance).items():
                title = f"blocked IPv{version} source, XDP, {name}"
                rows.setdefault(title, {})[f"{XDP_FILTER_HOLDS:,} entries"] = f"{cost:.0f}"
    return rows


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.block", description=__doc__)
    parser.add_argument("--packets", type=int, default=4000, help="a figure, %(default)s")
    parser.add_argument("--sizes", type=int, nargs="+", default=sorted(GOALS), help="of lists, %(default)s")
    parser.add_argument("--write", action="store_true", help="put the table into docs/PERFORMANCE.md")
    options = parser.parse_args()
    try:
        with Rig() as rig, inside(rig.middle):
            rows = measure(Bed(rig), options.packets, options.sizes, _say)
        _say("whole commands")
        commands = list(imports(lambda chance: [line.strip() for line in mixed(MILLION, chance)]))
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    facts = building(MILLION, random.Random(7))
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    table = Table("nanoseconds a packet", *columns)
    for title, cells in rows.items():
        table.add_row(title, *(cells.get(column, "") for column in columns))
    console = Console()
    console.print(table)
    for what, value in facts.items():
        console.print(f"a million prefixes, {what}: {value}")
    for command in commands:
        console.print(f"block import of a million, {command.text()}: {'met' if command.met else 'MISSED'}")
    if options.write:
        write(PAGE, "block", markdown(rows, columns, facts, commands, machine.facts()))
    return 0


def markdown(
    rows: Rows,
    columns: Sequence[str],
    facts: dict[str, str],
    commands: Sequence[Import],
    where: dict[str, str],
) -> str:
    """The tables for docs/PERFORMANCE.md."""
    lines = ["| nanoseconds a packet | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    lines += [
        f"| {title} | " + " | ".join(cells.get(column, "") for column in columns) + " |"
        for title, cells in rows.items()
    ]
    million = ", ".join(f"{what} {value}" for what, value in facts.items())
    lines += ["", f"A million prefixes: {million}.", ""]
    goal = f"at most {GOAL_SECONDS:g} s and {GOAL_MEGABYTES:g} MB"
    lines.append(f"The whole command `block import` of a million prefixes beside a running daemon ({goal}):")
    lines += ["", *(f"* {command.text()}" for command in commands), ""]
    lines.append(f"{where['date']}, kernel {where['kernel']}, {where['processor']}.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
