"""`python -m benchmarks.telemetry`: what it costs to tell of everything, and how much is told of a flood.

*Cost*: the same daemon with nobody who looks, and with metrics scraped once a second, flow logs by syslog and
IPFIX, and `top` attached. They take turns within a round, and each round begins with the other.

*Flood*: new flows at a fixed rate. Each event is sent, or counted as lost; what is neither is called missing.
"""

import argparse
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.bed import Bed
from benchmarks.compare import turned
from benchmarks.contenders import MarchProxy
from benchmarks.daemon import processor_seconds
from benchmarks.flood import Flood, gateway
from benchmarks.processor import busy_during
from benchmarks.report import PAGE, write
from benchmarks.results import Spread
from benchmarks.workloads import WORKLOADS, Workload
from marchproxy.model.errors import MarchproxyError
from rig import Appliance, Process, Rig
from rig.traffic import fetch
from rig.waiting import wait_for

RATES = (10_000, 20_000, 50_000, 100_000, 0)
"""New flows a second; 0: as many as there is time for."""
SINKS = ("--syslog", "udp://{server}:514", "--ipfix", "udp://{server}:4739", "--log-netflow", "--log-auth")
_SCRAPE = "while :; do curl -s -o /dev/null http://127.0.0.1:9090/metrics; sleep 1; done"


@dataclass(frozen=True, slots=True)
class Flooded:
    """What became of the events of one flood."""

    wanted: int
    """Flows a second; 0: as many as it goes."""
    made: int
    """Flows that began, each an event."""
    seconds: float
    sent: int
    """Records that left for syslog."""
    queued_out: int
    """Events that were taken, and whose record found the queue full."""
    lost: int
    """Events that were not taken, counted in the kernel or on the way to the loop."""
    processor: float
    """Of the daemon while the flood lasted: seconds a second."""

    @property
    def silent(self) -> int:
        """Events of which nothing is known. Refusals are not in `made`, so more may be told of than that."""
        return max(0, self.made - self.sent - self.queued_out - self.lost)

    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        a_second = [f"{value / self.seconds:,.0f}" for value in (self.made, self.sent + self.queued_out)]
        wanted = f"{self.wanted:,}" if self.wanted else "as many as it goes"
        counts = (self.sent, self.queued_out, self.lost, self.silent)
        return wanted, *a_second, *(f"{each:,}" for each in counts), f"{100 * self.processor:.0f} %"


FLOOD_TITLES = (
    *("new flows a second", "events a second", "taken a second", "sent", "queue full", "lost, counted"),
    *("missing", "daemon's processor"),
)


def flooded(flood: Flood, rate: int, seconds: int) -> Flooded:
    """One flood through an appliance of its own, until everything is told or counted."""
    appliance = gateway(flood.rig, f"flood-{rate}")
    try:
        where = [word.format(server=flood.rig.server.ipv4) for word in SINKS]
        appliance.cli("cluster", "set", "default", *where)
        appliance.start()
        assert appliance.daemon is not None
        before = processor_seconds(appliance.daemon.pid)
        asked = flood.ask((rate or 150_000) * seconds, rate)
        used = processor_seconds(appliance.daemon.pid) - before

        def settled() -> Flooded | None:
            sent, full = (
                _metric(appliance, "log_records_total", f'result="{what}",sink="syslog"')
                for what in ("sent", "full")
            )
            lost = _metric(appliance, "lost_events_total")
            found = Flooded(rate, asked.made, asked.seconds, sent, full, lost, used / asked.seconds)
            if _metric(appliance, "log_queue", 'sink="syslog"'):
                return None
            return None if found.silent and time.monotonic() < deadline else found

        deadline = time.monotonic() + 30
        return wait_for(settled, "the queue to be empty", timeout=60)
    finally:
        appliance.close()


def _metric(appliance: Appliance, name: str, labels: str = "") -> int:
    text = appliance.host.call(fetch, "127.0.0.1", 9090, "/metrics").decode()
    lines = [line for line in text.splitlines() if line.startswith(f"marchproxy_{name}") and labels in line]
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines))


@contextmanager
def collectors(rig: Rig) -> Iterator[None]:
    """Where records go: whatever comes is taken, and nobody reads it."""
    with ExitStack() as stack:
        for port in (514, 4739):
            sock = stack.enter_context(rig.server.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.bind((rig.server.ipv4, port))
        yield


@contextmanager
def looked_at(contender: MarchProxy, on: bool) -> Iterator[None]:
    """Everybody looks and is told, or nobody."""
    appliance, sinks = contender.appliance, SINKS if on else ("--syslog", "", "--ipfix", "")
    appliance.cli("cluster", "set", "default", *(word.format(server=contender.server) for word in sinks))
    if not on:
        yield
        return
    marchproxy = " ".join(appliance.command)
    with ExitStack() as stack:
        lists = Path(stack.enter_context(TemporaryDirectory())) / "top"
        lookers = (_SCRAPE, f"exec {marchproxy} top --interval 1 --output json >{lists}")
        for words in lookers:
            looker: Process = appliance.host.popen(["sh", "-c", words], env=appliance.env)
            stack.callback(looker.kill)
        # What it costs to start a command is not what it costs to look.
        wait_for(lambda: lists.exists() and lists.stat().st_size, "top to show something", timeout=30)
        yield


@dataclass(frozen=True, slots=True)
class Figure:
    """What one measurement came to."""

    value: float
    busy: float
    """Processor time for each of what was reached, of the whole machine."""
    told: float
    """Records that left for syslog, a second."""
    lost: float
    """Events that were counted as lost, a second."""


type Figures = dict[tuple[str, bool], list[Figure]]
"""By workload, and whether telemetry is on."""


def costs(bed: Bed, workloads: Sequence[Workload], rounds: int, seconds: int) -> Figures:
    """Every workload with and without, in turns."""
    contender = MarchProxy(bed)
    found: Figures = {}
    with contender.standing(), collectors(bed.rig):
        contender.wait_ready()
        for number in range(rounds):
            for workload in workloads:
                for on in turned((False, True), number):
                    with looked_at(contender, on):
                        figure = _measured(bed, workload, contender, seconds)
                    found.setdefault((workload.name, on), []).append(figure)
                    said = f"{figure.value / workload.scale:.1f} {workload.unit}"
                    said += f", told {figure.told:,.0f} a second, lost {figure.lost:,.0f}" if on else ""
                    label = f"round {number + 1}/{rounds}  {workload.title}  {'on' if on else 'off'}"
                    print(f"{label}  {said}", file=sys.stderr, flush=True)
    return found


def _measured(bed: Bed, workload: Workload, contender: MarchProxy, seconds: int) -> Figure:
    bed.forget()
    before = _told_and_lost(contender.appliance)
    value, busy = busy_during(lambda: workload.measure(bed, contender.target, seconds))
    told, lost = (
        (after - first) / seconds
        for first, after in zip(before, _told_and_lost(contender.appliance), strict=True)
    )
    return Figure(value, busy / (value * seconds), told, lost)


def _told_and_lost(appliance: Appliance) -> tuple[int, int]:
    sent = _metric(appliance, "log_records_total", 'result="sent",sink="syslog"')
    return sent, _metric(appliance, "lost_events_total")


COST_TITLES = (
    *("", "nobody looks", "telemetry fully on", "ratio", "processor time, ratio"),
    *("told a second", "lost a second"),
)


def cost_rows(found: Figures, workloads: Sequence[Workload]) -> Iterator[tuple[str, ...]]:
    """Medians and spreads; ratios are of the same round."""
    for workload in workloads:
        off, on = (found[workload.name, each] for each in (False, True))
        speeds = [Spread.of([figure.value / workload.scale for figure in each]) for each in (off, on)]
        pairs = list(zip(off, on, strict=True))
        ratios = [
            Spread.of([after.value / before.value for before, after in pairs]),
            Spread.of([after.busy / before.busy for before, after in pairs]),
        ]
        events = [Spread.of([figure.told for figure in on]), Spread.of([figure.lost for figure in on])]
        yield (
            f"{workload.title}, {workload.unit}",
            *(f"{each.median:.1f} ({each.low:.1f}-{each.high:.1f})" for each in speeds),
            *(f"{each.median:.2f} ({each.low:.2f}-{each.high:.2f})" for each in ratios),
            *(f"{each.median:,.0f}" for each in events),
        )


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = (titles, ["---"] * len(titles), *rows)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _floods(seconds: int) -> list[Flooded]:
    with Rig() as rig, collectors(rig):
        flood = Flood(rig)
        return [flooded(flood, rate, seconds) for rate in RATES]


def main() -> int:
    """Exit code 1 where something could not be measured, or an event is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="figures per cell, %(default)s")
    parser.add_argument("--seconds", type=int, default=4, help="per figure and flood, %(default)s")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/PERFORMANCE.md")
    names = [each.name for each in WORKLOADS if each.name != "keep-alive"]
    parser.add_argument(
        "--only", choices=names, action="append", help="workloads of the first table; may be repeated"
    )
    options = parser.parse_args()
    if options.only and options.write:
        parser.error("the page holds all workloads: --write goes without --only")
    workloads = [each for each in WORKLOADS if each.name in (options.only or names)]
    try:
        with Rig() as rig:
            figures = costs(Bed(rig), workloads, options.rounds, options.seconds)
        floods = [] if options.only else _floods(options.seconds)
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    tables = (
        (COST_TITLES, list(cost_rows(figures, workloads))),
        (FLOOD_TITLES, [each.cells() for each in floods]),
    )
    for titles, rows in tables:
        shown = Table(*titles)
        for row in rows:
            shown.add_row(*row)
        Console().print(shown)
    if options.write:
        facts = machine.facts()
        on = f"{facts['date']}, kernel {facts['kernel']}, {facts['processor']}"
        where = f"{on}, load before: {facts['load before']}."
        rounds = f"{options.rounds} rounds of {options.seconds} s for each figure of the first table."
        write(PAGE, "telemetry", "\n\n".join([*(_table(*each) for each in tables), rounds, where]))
    return 1 if any(each.silent for each in floods) else 0


if __name__ == "__main__":
    sys.exit(main())
