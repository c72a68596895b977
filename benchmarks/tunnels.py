"""`python -m benchmarks.tunnels`: TCP tunnels through an explicit proxy, against other ways to the server.

MarchProxy, Squid and tinyproxy are asked by CONNECT; HAProxy, nginx and Envoy pass TCP on at a port of their
own, which spares them the request; plain routing has nothing in between. One program (`tunnel.c`) is client
and server for all of them, and every figure has its contender set up for it alone.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.bed import TUNNEL, Bed, compiled
from benchmarks.compare import turned
from benchmarks.contenders import Contender, OurDaemon, Routing
from benchmarks.processor import busy_during
from benchmarks.proxies import Envoy, HAProxy, Nginx, Proxy, first_line
from benchmarks.report import PAGE, cell_of, versions, write
from benchmarks.results import RESULTS, Measurement, Run
from marchproxy.model.errors import MarchproxyError
from rig import Appliance, Process, Rig, RigError
from rig.network import LISTEN4

PROXY_PORT = 3128
TUNNELS = 8
"""Open at a time in ping-pong."""
AT_ONCE = 64
"""Conversations at a time where each is new."""
HELD = 10_000
"""Tunnels whose memory is measured, of two clients: a process that may have 20,000 descriptors, of which each
tunnel takes two, lets one client have 4,872, and whoever wakes first takes a connection."""


class Asked(Contender):
    """A contender that is asked by CONNECT."""

    via: ClassVar[str] = f"{LISTEN4}:{PROXY_PORT}"

    @property
    def target(self) -> str:
        """The server itself."""
        return self.server

    def reached(self) -> bool:
        try:
            self.bed.rig.client.run([*command(self, "ping", 0.01), "1"])
        except RigError:
            return False
        return True


class MarchProxyTunnels(Asked, OurDaemon):
    """Its explicit proxy: admitted in Python, handed to the kernel."""

    name = "marchproxy"
    title = "MarchProxy"

    def __init__(self, bed: Bed) -> None:
        """Write its configuration."""
        super().__init__(bed)
        self.appliance = Appliance(bed.rig, name="tunnels")
        cli = self.appliance.cli
        cli("init")
        for interface, role in (("inside0", "inside"), ("outside0", "outside")):
            cli("interface", "add", interface, "--role", role, "--mode", "tc")
        cli("service", "add", "clients", "--address", "10.1.0.0/16")
        cli("service", "add", "server", "--address", self.server)
        what = ("--protocol", "tcp", "--ports", str(TUNNEL.number))
        cli("mapping", "add", "tunnels", "--from", "clients", "--to", "server", *what)
        cli("listener", "add", "explicit", "--bind", self.via)


class Squid(Asked, Proxy):
    """Two workers would each need a shared cache; without one, a single process is what its users run."""

    name = "squid"
    title = "Squid CONNECT"

    def version(self) -> str:
        return first_line("squid", "-v")

    def start(self, folder: Path) -> Process:
        configuration = folder / "squid.conf"
        configuration.write_text(
            f"http_port {self.via}\n"
            "http_access allow all\n"
            "cache deny all\ncache_mem 8 MB\naccess_log none\ncache_log /dev/null\nlogfile_rotate 0\n"
            "pid_filename none\ncoredump_dir none\npinger_enable off\n"
            "max_filedescriptors 16384\nshutdown_lifetime 0 seconds\nread_ahead_gap 256 KB\n"
        )
        return self.bed.rig.middle.popen(["squid", "-N", "-f", str(configuration)])


class Tinyproxy(Asked, Proxy):
    """As many threads as it likes."""

    name = "tinyproxy"
    title = "tinyproxy CONNECT"

    def version(self) -> str:
        return first_line("tinyproxy", "-v")

    def start(self, folder: Path) -> Process:
        configuration = folder / "tinyproxy.conf"
        configuration.write_text(
            f"Port {PROXY_PORT}\nListen {LISTEN4}\nTimeout 60\nMaxClients 4096\nLogLevel Critical\n"
            "User root\nDisableViaHeader Yes\n"
        )
        return self.bed.rig.middle.popen(["tinyproxy", "-d", "-c", str(configuration)])


CONTENDERS: tuple[type[Contender], ...] = (
    Routing,
    MarchProxyTunnels,
    HAProxy,
    Nginx,
    Envoy,
    Squid,
    Tinyproxy,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One workload."""

    name: str
    title: str
    unit: str
    scale: float
    goal: float
    """What MarchProxy is to reach, as a share of plain routing; 0: none is set."""
    figure: Callable[[Any], float]
    """From what the program printed."""
    mode: str
    sockets: int = 1
    less_is_better: bool = False


_NEW = Row("new", "new tunnels", "k/s", 1e3, 0, lambda ran: ran["count"] / ran["seconds"], "new", AT_ONCE)
PER_CORE = 0.7
"""New tunnels for the same processor time, as a share of HAProxy's."""
ROWS = (
    Row("up", "one stream up", "Gbit/s", 1e9, 0.9, lambda ran: 8 * ran["count"] / ran["seconds"], "up"),
    Row("down", "one stream down", "Gbit/s", 1e9, 0.9, lambda ran: 8 * ran["count"] / ran["seconds"], "down"),
    Row(
        "ping", f"ping-pong, {TUNNELS} tunnels", "k/s", 1e3, 0.9,
        lambda ran: ran["count"] / ran["seconds"], "ping", TUNNELS,
    ),
    _NEW,
    Row("p50", "one answer, median", "µs", 1, 0, lambda ran: float(ran["p50"]), "ping", 1, True),
    Row("p99", "one answer, 99 of 100", "µs", 1, 0, lambda ran: float(ran["p99"]), "ping", 1, True),
)  # fmt: skip


def command(contender: Contender, mode: str, seconds: float) -> list[str]:
    """The program that measures, up to its number of sockets."""
    program = compiled("tunnel")
    via = contender.via if isinstance(contender, Asked) else "-"
    return [program, mode, via, contender.target, str(TUNNEL.number), f"{seconds:g}"]


def figures(contender: Contender, rows: Sequence[Row], seconds: float) -> Iterator[tuple[Row, float, float]]:
    """Of rows that one run of the program gives, and the processor time of each byte, answer or talk."""
    first = rows[0]
    argv = [*command(contender, first.mode, seconds), str(first.sockets)]
    printed, busy = busy_during(lambda: contender.bed.rig.client.run(argv, timeout=seconds + 20).stdout)
    ran = json.loads(printed)
    if ran["failed"] > ran["count"] / 1000:
        raise RigError(f"{ran['failed']} of {ran['count']} conversations failed")
    for row in rows:
        yield row, row.figure(ran), busy / ran["count"]


def measure(
    bed: Bed, kinds: Sequence[type[Contender]], rounds: int, seconds: int, report: Callable[[str], None]
) -> Run:
    """All contenders at all rows in turn, each round beginning with another."""
    contenders = [kind(bed) for kind in kinds]
    run = Run(machine.facts(), {one.name: one.version() for one in contenders}, rounds, seconds)
    runs: dict[tuple[str, int], list[Row]] = {}
    for row in ROWS:
        runs.setdefault((row.mode, row.sockets), []).append(row)
    for number in range(rounds):
        for rows in runs.values():
            for contender in turned(contenders, number):
                label = f"round {number + 1}/{rounds}  {rows[0].title}  {contender.title}"
                try:
                    with contender.standing():
                        contender.wait_ready()
                        bed.forget()
                        for row, value, busy in figures(contender, rows, seconds):
                            measured = Measurement(number, row.name, contender.name, value, busy)
                            run.measurements.append(measured)
                            report(f"{label}  {row.title} {value / row.scale:.1f} {row.unit}")
                except MarchproxyError as error:
                    run.failures.append(f"{label}: {error.message} {error.hint}".strip())
                    report(run.failures[-1])
    return run


def summary(run: Run, row: Row, kind: type[Contender]) -> tuple[str, str]:
    """Median with spread, and ratio to routing."""
    found = run.summary(row.name, kind.name)
    return cell_of(found, row.scale) if found else ("-", "")


def goals(run: Run) -> Iterator[str]:
    """A line for each row: how MarchProxy did against its goal and the best of the others."""
    for row in ROWS:
        mine = run.summary(row.name, MarchProxyTunnels.name)
        if mine is None:
            continue
        best = min if row.less_is_better else max
        others = [
            (found.ratio.median, kind.title)
            for kind in CONTENDERS
            if kind not in (Routing, MarchProxyTunnels) and (found := run.summary(row.name, kind.name))
        ]
        reached = mine.ratio.median
        line = f"{row.title}: {reached:.2f} of routing"
        if row.goal:
            line += f", goal {row.goal:.2f} {'met' if reached >= row.goal else 'MISSED'}"
        if others:
            ratio, title = best(others)
            line += f"; {reached / ratio:.2f} of the best other, {title} ({ratio:.2f})"
        yield line
    mine, other = (run.summary(_NEW.name, kind.name) for kind in (MarchProxyTunnels, HAProxy))
    if mine and other:
        share = other.busy.median / mine.busy.median
        met = "met" if share >= PER_CORE else "MISSED"
        yield f"{_NEW.title} for the same processor time: {share:.2f} of HAProxy, goal {PER_CORE} {met}"


def memory() -> str:
    """What open tunnels cost daemon and workers, none of which has been handed to the kernel."""
    with Rig(clients=2) as rig:
        contender = MarchProxyTunnels(Bed(rig))
        contender.appliance.cli("appliance", "set", "--handoff-bytes", "0", "--handoff-seconds", "0")
        with contender.standing():
            contender.wait_ready()
            before = _resident(contender)
            share = str(HELD // len(rig.clients))
            argv = [*command(contender, "hold", 60), share]
            for holding in [client.popen(argv) for client in rig.clients]:
                holding.expect("open", timeout=60)
            held = _resident(contender)
    return f"{HELD:,} open tunnels: {held:.0f} MB resident, {before:.0f} MB without them"


def _resident(contender: MarchProxyTunnels) -> float:
    """Megabytes of the daemon and its workers; what they share is counted once (Pss of proc(5))."""
    daemon = contender.appliance.daemon
    assert daemon is not None
    pids = [daemon.pid]
    for pid in pids:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        pids += [int(child) for child in children]
    kilobytes = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kilobytes += int(line.split()[1])
    return kilobytes * 1024 / 1e6


def markdown(run: Run, held: str) -> str:
    """The table for docs/PERFORMANCE.md."""
    kinds = [kind for kind in CONTENDERS if kind.name in run.contenders]
    lines = ["| | " + " | ".join(kind.title for kind in kinds) + " |", "|---|" + "---|" * len(kinds)]
    for row in ROWS:
        cells = ["<br>".join(filter(None, summary(run, row, kind))) for kind in kinds]
        lines.append(f"| {row.title}, {row.unit} | " + " | ".join(cells) + " |")
    lines += ["", f"{run.rounds} rounds of {run.seconds} s for each figure.", "", f"{held}."]
    lines += [f"* {name}: {value}" for name, value in run.machine.items()]
    lines += versions(run)
    lines += [f"* failed: {failure}" for failure in run.failures]
    return "\n".join(lines)


def show(run: Run, held: str, console: Console) -> None:
    """Print the tables and how the goals were met."""
    for row in ROWS:
        table = Table(title=f"{row.title}, {row.unit}", title_justify="left", width=78)
        table.add_column("through", ratio=3)
        table.add_column("median (min-max)", ratio=4, justify="right")
        table.add_column("to routing (min-max)", ratio=4, justify="right")
        for kind in CONTENDERS:
            if kind.name in run.contenders:
                style = "bold" if kind is MarchProxyTunnels else ""
                table.add_row(kind.title, *summary(run, row, kind), style=style)
        console.print(table)
    for line in (*goals(run), held, *(f"failed: {failure}" for failure in run.failures)):
        console.print(line, highlight=False, soft_wrap=True)


def main() -> int:
    """Exit code 1 where something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tunnels", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="figures per cell, %(default)s")
    parser.add_argument("--seconds", type=int, default=2, help="per figure, %(default)s")
    parser.add_argument(
        "--only", nargs="+", choices=[kind.name for kind in CONTENDERS], help="beside routing"
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/PERFORMANCE.md")
    options = parser.parse_args()
    names = {Routing.name, *(options.only or [kind.name for kind in CONTENDERS])}
    try:
        with Rig() as rig:
            bed = Bed(rig)
            wanted = [kind for kind in CONTENDERS if kind.name in names]
            run = measure(
                bed, wanted, options.rounds, options.seconds, lambda line: print(line, file=sys.stderr)
            )
        held = memory() if MarchProxyTunnels in wanted else ""
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    run.save(RESULTS / f"tunnels-{datetime.now(UTC):%Y%m%d-%H%M%S}.json")
    show(run, held, Console())
    if options.write:
        write(PAGE, "tunnels", markdown(run, held))
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
