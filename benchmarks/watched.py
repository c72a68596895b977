"""What traffic loses while somebody looks at a million flows: the terminal front end itself, in a terminal.

Rounds with and without it take turns, and so does which of them comes first: what disturbs a machine for
minutes disturbs both. It runs where it would, on the appliance; so do here the hosts that make the traffic,
and all of them share its processors.
"""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.bed import Bed
from benchmarks.processor import family, spent
from benchmarks.profiles import programs
from benchmarks.results import Spread
from benchmarks.workloads import bulk_up, ping_pong
from marchproxy import bpf
from marchproxy.dataplane.kernel.testrun import run_statistics
from rig import Appliance
from rig.host import checked
from rig.waiting import wait_for

LINES, COLUMNS = 40, 120
SHOWN = 120.0
"""Seconds that a first page may take: there is a million, and no processor is idle."""
_KEPT = 1 << 16
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")

_TOTAL = re.compile(r"-[\d,]+ of ([\d,]+)")


@dataclass(frozen=True, slots=True)
class Kind:
    """Traffic through the appliance."""

    title: str
    unit: str
    scale: float
    measure: Callable[[Bed, str, float], float]


KINDS = (
    Kind("bulk TCP, one stream", "Gbit/s", 1e9, bulk_up),
    Kind("TCP ping-pong, 8 connections", "k answers/s", 1e3, ping_pong),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """What traffic did."""

    value: float
    """In the kind's unit, times its scale."""
    packet: float
    """Nanoseconds that the appliance's programs in the kernel took for one."""


@dataclass(frozen=True, slots=True)
class Round:
    """One figure of each, of the same minute."""

    kind: Kind
    alone: Figure
    watched: Figure
    daemon: float
    """Of a processor, while it is watched."""
    terminal: float
    """Of a processor."""


class Meter:
    """Measures traffic to the server of a bed, and what the programs of an appliance take for it."""

    def __init__(self, bed: Bed, appliance: Appliance, seconds: float) -> None:
        """`seconds` for each figure."""
        self.seconds = seconds
        self._bed = bed
        pins = (appliance.bpffs / f"v{bpf.ABI}" / "links").iterdir()
        self._programs = {_program(pin) for pin in pins}

    def figure(self, kind: Kind) -> Figure:
        """One."""
        with run_statistics():
            before = self._ran()
            value = kind.measure(self._bed, self._bed.rig.server.ipv4, self.seconds)
            calls, nanoseconds = (now - then for now, then in zip(self._ran(), before, strict=True))
        return Figure(value, nanoseconds / calls)

    def _ran(self) -> tuple[int, int]:
        ours = [each for number, each in programs().items() if number in self._programs]
        return sum(each.calls for each in ours), sum(each.nanoseconds for each in ours)


def _program(pin: Path) -> int:
    """The number of the program that a pinned link runs."""
    said = json.loads(checked(["bpftool", "--json", "link", "show", "pinned", str(pin)]).stdout)
    return int((said[0] if isinstance(said, list) else said)["prog_id"])


class Terminal:
    """`marchproxy tui` on an appliance, on the flows tab."""

    def __init__(self, appliance: Appliance) -> None:
        """Start it; somebody reads all that it draws."""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._drawn = b""
        self._process = subprocess.Popen(
            appliance.host.enter([*appliance.command, "tui", "--read-only"]),
            env={**os.environ, **appliance.env, "TERM": "xterm-256color"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def press(self, keys: str) -> None:
        """Type them."""
        os.write(self._master, keys.encode())

    def text(self) -> str:
        """What was drawn last, one thing after the other, without where and how."""
        return _SEQUENCE.sub("", self._drawn.decode(errors="replace"))

    def flows(self) -> int:
        """How many it says that there are."""
        said = _TOTAL.findall(self.text())
        return int(said[-1].replace(",", "")) if said else 0

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        os.close(self._master)

    def _read(self) -> None:
        while True:
            try:
                some = os.read(self._master, 1 << 16)
            except OSError:  # EIO: nobody has the other end any more.
                return
            if not some:
                return
            self._drawn = (self._drawn + some)[-_KEPT:]


@contextmanager
def watching(appliance: Appliance, flows: int) -> Iterator[Terminal]:
    """Somebody looks at the flows, and sees them."""
    terminal = Terminal(appliance)
    try:
        wait_for(lambda: "Overview" in terminal.text(), "the first screen", timeout=SHOWN)
        terminal.press("2")
        wait_for(lambda: terminal.flows() >= flows, "the page of flows", timeout=SHOWN)
        yield terminal
    finally:
        terminal.close()


def rounds(bed: Bed, appliance: Appliance, flows: int, count: int, seconds: float) -> Iterator[Round]:
    """So many of each kind, `seconds` for each figure."""
    meter = Meter(bed, appliance, seconds)
    for number in range(count):
        for kind in KINDS:
            if number % 2:
                watched, daemon, terminal = _watched(meter, appliance, flows, kind)
                alone = meter.figure(kind)
            else:
                alone = meter.figure(kind)
                watched, daemon, terminal = _watched(meter, appliance, flows, kind)
            yield Round(kind, alone, watched, daemon, terminal)


def _watched(meter: Meter, appliance: Appliance, flows: int, kind: Kind) -> tuple[Figure, float, float]:
    """The figure, and what daemon and terminal took of a processor meanwhile."""
    assert appliance.daemon is not None
    with watching(appliance, flows) as terminal:
        pids = family(appliance.daemon.pid), family(terminal.pid)
        before = [spent(each) for each in pids]
        figure = meter.figure(kind)
        daemon, drawn = (spent(each) - was for each, was in zip(pids, before, strict=True))
    return figure, daemon / meter.seconds, drawn / meter.seconds


TITLES = ("while somebody looks at the flows", "nobody looks", "somebody does", "ratio")


def rows(found: Sequence[Round]) -> list[tuple[str, ...]]:
    """Medians with the least and the most, under `TITLES`."""
    made: list[tuple[str, ...]] = []
    for kind in KINDS:
        ours = [each for each in found if each.kind is kind]
        values = [(each.alone.value / kind.scale, each.watched.value / kind.scale) for each in ours]
        packets = [(each.alone.packet, each.watched.packet) for each in ours]
        made.append((f"{kind.title}, {kind.unit}", *_compared(values, 2)))
        made.append(("the programs in the kernel for a packet of it, ns", *_compared(packets, 0)))
        made.append(("processor of daemon and terminal, %", "", _shares(ours), ""))
    return made


def _compared(pairs: Sequence[tuple[float, float]], digits: int) -> tuple[str, str, str]:
    alone, watched = zip(*pairs, strict=True)
    ratios = [after / before for before, after in pairs]
    return _spread(alone, digits), _spread(watched, digits), _spread(ratios, 3)


def _shares(ours: Sequence[Round]) -> str:
    shares = median(each.daemon for each in ours), median(each.terminal for each in ours)
    return " and ".join(f"{100 * share:.1f}" for share in shares)


def markdown(found: Sequence[Round], seconds: float) -> str:
    """The table for docs/PERFORMANCE_SERIES.md."""
    lines = [TITLES, ("---",) * len(TITLES), *rows(found)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    count = len(found) // len(KINDS)
    return f"{table}\n\n{count} rounds of {seconds:g} s for each figure: median (least-most)."


def _spread(values: Sequence[float], digits: int) -> str:
    found = Spread.of(values)
    return f"{found.median:.{digits}f} ({found.low:.{digits}f}-{found.high:.{digits}f})"
