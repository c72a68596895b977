"""`python -m benchmarks.memory`: the kernel's memory for a million flows and a million blocked prefixes.

Tables as the data plane has them, by themselves, filled through the map interface: a flow has two entries,
one for each direction. Three figures, because none says everything: what the kernel counts for the map
(`memlock` in its fdinfo, proc(5)); by how much its slab that cannot be reclaimed, its vmalloc and its per-CPU
memory grew; and by how much MemAvailable fell, which also sees what the rest of the machine does meanwhile.
"""

import argparse
import ctypes as ct
import gc
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.block import compiled, contents_of
from benchmarks.report import PAGE, write
from marchproxy import bpf
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.blockimage import build_image
from marchproxy.dataplane.kernel.blocks import create_image
from marchproxy.dataplane.kernel.errors import refusal
from marchproxy.dataplane.kernel.libbpf import MapCreateOptions, library
from marchproxy.dataplane.kernel.maps import BATCH, Map
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.model.errors import MarchproxyError

MILLION = 1_000_000
FLOW_TABLE = 2 * MILLION
"""The setting `flow_table` that a million flows need."""
_KERNEL = ("SUnreclaim", "VmallocUsed", "Percpu")
_AVAILABLE = "MemAvailable"
_FOUR, _SIX = (24, 24, 28, 32, 32, 32), (48, 48, 56, 64, 64, 128)
"""Lengths of blocked prefixes, as lists have them."""
TITLES = ("", "entries", "memlock", "kernel grew by", "MemAvailable fell by", "bytes each")


@dataclass(frozen=True, slots=True)
class Memory:
    """How much of it there is, in bytes, at one moment."""

    kernel: int
    """Slab that cannot be reclaimed, vmalloc, per-CPU."""
    available: int

    @classmethod
    def of(cls, meminfo: str) -> "Memory":
        """From what /proc/meminfo says."""
        lines = (line.split() for line in meminfo.splitlines())
        sizes = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}
        return cls(sum(sizes[name] for name in _KERNEL), sizes[_AVAILABLE])

    @classmethod
    def now(cls) -> "Memory":
        """Without what Python could still give back."""
        gc.collect()
        return cls.of(Path("/proc/meminfo").read_text())


@dataclass(frozen=True, slots=True)
class Taken:
    """What one thing takes, in bytes."""

    title: str
    entries: int
    memlock: int
    kernel: int
    available: int
    pieces: int = 0
    """What the bytes are shared among; 0: nothing."""

    def cells(self) -> tuple[str, ...]:
        """As shown, under `TITLES`."""
        sizes = (f"{size / 1e6:.1f} MB" for size in (self.memlock, self.kernel, self.available))
        each = f"{self.kernel / self.pieces:.0f}" if self.pieces else ""
        return self.title, f"{self.entries:,}", *sizes, each


def measure(flows: int = MILLION, prefixes: int = MILLION) -> Iterator[Taken]:
    """Everything, as it is found."""
    with BpfObject.load(bpf.OBJECTS / "tc.bpf.o", pinned_maps=()) as loaded:
        yield from _table(loaded.maps["flows"], flows, max(2 * flows, 1024), "flows, two entries each")
        opening = loaded.maps["opening"]
        half = opening.max_entries // 2
        yield from _table(opening, half, opening.max_entries, "flows that are being opened, as many as fit")
    image = build_image(compiled(contents_of(iter(apart(prefixes, random.Random(7))))).lists, [1])
    before = Memory.now()
    with Map(create_image(image), "block_image") as held:
        yield _taken("blocked prefixes, three of four IPv4", prefixes, held, before, prefixes)


def _table(like: Map, flows: int, room: int, title: str) -> Iterator[Taken]:
    """A table as `like`, with another size: empty, then full."""
    before = Memory.now()
    with _created(like, room) as table:
        yield _taken(f"{like.name}: the empty table", 0, table, before)
        for some in batched(flow_keys(flows), BATCH):
            table.update_many([(key, bytes(table.value_size)) for key in some])
        yield _taken(f"{flows:,} {title}", 2 * flows, table, before, flows)


def _created(like: Map, room: int) -> Map:
    options = MapCreateOptions(map_flags=like.flags)
    fd = int(
        library().bpf_map_create(
            like.type, b"benchmark", like.key_size, like.value_size, room, ct.byref(options)
        )
    )
    if fd < 0:
        raise refusal(-fd, f"create a map of {room} entries")
    return Map(fd, like.name)


def _taken(title: str, entries: int, table: Map, before: Memory, pieces: int = 0) -> Taken:
    now = Memory.now()
    memlock = counted(Path(f"/proc/self/fdinfo/{table.fd}").read_text())
    return Taken(
        title, entries, memlock, now.kernel - before.kernel, before.available - now.available, pieces
    )


def counted(fdinfo: str) -> int:
    """Bytes that the kernel counts for a map."""
    lines = (line.split() for line in fdinfo.splitlines())
    return next(int(words[1]) for words in lines if words[0] == "memlock:")


def flow_keys(flows: int) -> Iterator[bytes]:
    """Keys of both directions of so many flows."""
    pack = layouts.FLOW_KEY.struct.pack
    mapped = bytes(10) + b"\xff\xff"
    server, port = mapped + bytes((10, 2, 0, 2)), (443).to_bytes(2)
    for number in range(flows):
        client = mapped + (10 << 24 | number >> 10).to_bytes(4)
        own = (1024 + (number & 1023)).to_bytes(2)
        yield pack(client, server, own, port, 6)
        yield pack(server, client, port, own, 6)


def apart(count: int, chance: random.Random) -> Iterator[str]:
    """Prefixes none of which contains another, three of four IPv4."""
    six = count // 4
    for top in chance.sample(range(1 << 16, 224 << 16), count - six):
        yield f"{top >> 16}.{top >> 8 & 255}.{top & 255}.0/{chance.choice(_FOUR)}"
    for top in chance.sample(range(0x2000_0000_0000, 0x4000_0000_0000), six):
        groups = ":".join(f"{top >> shift & 0xFFFF:x}" for shift in (32, 16, 0))
        yield f"{groups}::/{chance.choice(_SIX)}"


def markdown(taken: Sequence[Taken], facts: dict[str, str]) -> str:
    """The table for docs/PERFORMANCE.md."""
    rows = [TITLES, ("---",) * len(TITLES), *(each.cells() for each in taken)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", f"{facts['date']}, kernel {facts['kernel']}, {facts['processor']}."]
    return "\n".join(lines)


def main() -> int:
    """Exit code 1 where something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/PERFORMANCE.md")
    options = parser.parse_args()
    try:
        taken = list(measure())
        table = Table(*TITLES)
        for each in taken:
            table.add_row(*each.cells())
        Console().print(table)
        if options.write:
            write(PAGE, "memory", markdown(taken, machine.facts()))
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
