"""`python -m benchmarks.http`: HTTP through MarchProxy, against other proxies that read it.

Every figure has its contender set up for it alone. Processor time is that of the contender's own processes:
client and server are the same for all. What it does in interrupts is on their account, as far as the kernel
puts it there. Where MarchProxy leaves the work to the kernel, the processor time of the machine is compared.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from benchmarks import http3, machine, websockets
from benchmarks.__main__ import at_least_one
from benchmarks.bed import HTTP, LARGE, Bed
from benchmarks.compare import turned
from benchmarks.contenders import Contender
from benchmarks.httpproxies import (
    INFORMING,
    NAME,
    SECURE,
    Caddy,
    Direct,
    EnvoyHttp,
    HAProxyHttp,
    MarchProxyHttp,
    Mitmproxy,
    NginxHttp,
    ProxyPy,
    Reader,
    Traefik,
)
from benchmarks.processor import busy_during, spent
from benchmarks.report import versions, write
from benchmarks.results import RESULTS, Measurement, Run, Spread
from benchmarks.wrk import parse
from marchproxy.model.errors import MarchproxyError
from rig import Rig, RigError
from rig.servers import ROOT

type Kind = type[MarchProxyHttp | HAProxyHttp | NginxHttp | EnvoyHttp | Caddy | Traefik | ProxyPy | Mitmproxy]

PEERS: tuple[Kind, ...] = (HAProxyHttp, NginxHttp, EnvoyHttp, Caddy, Traefik, ProxyPy, Mitmproxy)
CONTENDERS: tuple[Kind | type[Direct], ...] = (Direct, MarchProxyHttp, *PEERS)
PAGE = ROOT / "docs" / "PERFORMANCE_HTTP.md"
CLIENTS = 4
"""Programs that shake hands at a time."""
WARM_UP = 2
"""Seconds of the same before each figure: who stands has been at it for longer in earnest."""
FAILED = 0.001
"""Share of requests that may. Whoever loses more is not faster but broken."""
_HANDSHAKES = re.compile(r"^(\d+) connections in (\d+) real seconds", re.MULTILINE)
_H2LOAD = re.compile(r"finished in [\d.]+\w+, ([\d.]+) req/s")
_H2LOAD_FAILED = re.compile(r"(\d+) succeeded, (\d+) failed, (\d+) errored")


def wrk(*options: str, path: str = "/", port: int = HTTP.number) -> "Ask":
    """Requests a second of wrk."""
    scheme = "https" if port == SECURE else "http"

    def measure(bed: Bed, target: str, seconds: int) -> float:
        argv = ["wrk", "--threads", "2", "--duration", f"{seconds}s", *options]
        printed = bed.rig.client.run([*argv, f"{scheme}://{target}:{port}{path}"], timeout=seconds + 20)
        run = parse(printed.stdout)
        if run.failed > FAILED * run.requests:
            raise RigError(f"{run.failed} of {run.requests} requests failed")
        return run.per_second

    return measure


def handshakes(*options: str) -> "Ask":
    """TLS connections a second, each with one request, of several `openssl s_time`.

    That goes by the wall clock's whole seconds: told N of them it ends with the Nth after the one that it
    began in. So it begins with one, or it would run for up to a second more than is reckoned with.
    """

    def measure(bed: Bed, target: str, seconds: int) -> float:
        argv = ["openssl", "s_time", "-connect", f"{target}:{SECURE}", "-time", str(seconds - 1), "-www", "/"]

        def one(_: int) -> float:
            printed = bed.rig.client.run([*argv, *options], timeout=seconds + 20, check=False).stdout
            found = _HANDSHAKES.findall(printed)
            if not found or not int(found[-1][0]):
                raise RigError("openssl s_time connected to nobody", hint=printed)
            return int(found[-1][0]) / seconds

        with ThreadPoolExecutor(CLIENTS) as pool:
            time.sleep(1 - time.time() % 1)
            return sum(pool.map(one, range(CLIENTS)))

    return measure


def h2load(bed: Bed, target: str, seconds: int) -> float:
    """Requests a second by HTTP/2 under TLS, 16 connections with 8 streams each."""
    shape = ["--clients", "16", "--max-concurrent-streams", "8", "--threads", "2"]
    argv = ["h2load", *shape, "--duration", str(seconds), "--connect-to", f"{target}:{SECURE}"]
    printed = bed.rig.client.run([*argv, f"https://{NAME}:{SECURE}/"], timeout=seconds + 20).stdout
    rate, ended = _H2LOAD.search(printed), _H2LOAD_FAILED.search(printed)
    if rate is None or ended is None or int(ended[2]) + int(ended[3]) > FAILED * int(ended[1]):
        raise RigError("h2load had failures", hint=printed)
    return float(rate[1])


type Ask = Callable[[Bed, str, int], float]
"""Bed, target address, seconds: pieces of work a second."""
type Measure = Callable[[Reader, int], AbstractContextManager[Callable[[], float]]]
"""Who stands, and seconds. Opens what is open before the clock runs; gives what measures work a second."""


def nothing_open(ask: Ask) -> Measure:
    """All that is asked for is work."""

    @contextmanager
    def ready(contender: Reader, seconds: int) -> Iterator[Callable[[], float]]:
        yield lambda: ask(contender.bed, contender.target, seconds)

    return ready


@dataclass(frozen=True, slots=True)
class Row:
    """One workload."""

    name: str
    title: str
    goal: float
    """What MarchProxy is to reach of HAProxy's work for the same processor time; 0: none is set."""
    measure: Measure
    needs: str = ""
    """`secure`, `http2`, `http3`, `websocket`, `informs`, `keeps`: what a contender must be able to do."""
    unit: str = "k/s"
    scale: float = 1e3
    in_kernel: bool = False
    """MarchProxy's work is: the processor time of the whole machine is what is compared."""


ROWS = (
    Row(
        *("small", "small answers, kept connections", 0.8),
        *(nothing_open(wrk("--connections", "32")), "keeps"),
    ),
    Row(
        *("informing", "small answers, the server told as much", 0.0),
        *(nothing_open(wrk("--connections", "32", port=INFORMING)), "informs"),
    ),
    Row(
        *("large", f"answers of {LARGE >> 20} MiB", 0.8),
        *(nothing_open(wrk("--connections", "8", path="/large")), "keeps"),
        unit="Gbit/s",
        scale=1e9 / 8 / LARGE,
    ),
    Row(
        *("new", "a connection for each request", 0.0),
        nothing_open(wrk("--connections", "64", "--header", "Connection: close")),
    ),
    Row(
        *("tls", "small answers under TLS", 0.0),
        *(nothing_open(wrk("--connections", "32", port=SECURE)), "secure"),
    ),
    Row("full", "TLS handshakes, full", 0.7, nothing_open(handshakes("-new")), "secure"),
    Row("resumed", "TLS handshakes, resumed", 0.7, nothing_open(handshakes("-reuse")), "secure"),
    Row("http2", "small answers by HTTP/2", 0.0, nothing_open(h2load), "http2"),
    Row("http3", "small answers by HTTP/3", 0.0, http3.kept, "http3"),
    Row(
        *("websocket", "WebSocket, messages in turn", 0.0, websockets.in_turn, "websocket"),
        in_kernel=True,
    ),
    Row("websocket-new", "new WebSockets", 0.0, nothing_open(websockets.new), "websocket"),
)


def measure(
    bed: Bed,
    kinds: Sequence[Kind | type[Direct]],
    rows: Sequence[Row],
    rounds: int,
    seconds: int,
    report: Callable[[str], None],
) -> Run:
    """All contenders at all rows in turn, each round beginning with another."""
    contenders = [kind(bed) for kind in kinds]
    run = Run(machine.facts(), {one.name: one.version() for one in contenders}, rounds, seconds)
    for number in range(rounds):
        for row in rows:
            for contender in turned(contenders, number):
                if row.needs and not getattr(contender, row.needs):
                    continue
                label = f"round {number + 1}/{rounds}  {row.title}  {contender.title}"
                try:
                    figure = _figure(bed, contender, row, seconds)
                except MarchproxyError as error:
                    run.failures.append(f"{label}: {error.message}")
                    report(f"{run.failures[-1]} {error.hint}".strip())
                    continue
                value, busy, whole = figure
                run.measurements.append(Measurement(number, row.name, contender.name, value, busy, whole))
                report(f"{label}  {value / row.scale:.2f} {row.unit}  {busy * 1e6:.1f} µs")
    return run


def _figure(bed: Bed, contender: Reader, row: Row, seconds: int) -> tuple[float, float, float]:
    """Pieces of work a second, and processor time for each: the contender's, and the machine's."""
    with contender.standing():
        contender.wait_ready()
        with row.measure(contender, WARM_UP) as work:
            work()
        bed.forget()
        with row.measure(contender, seconds) as work:
            own = contender.processes()
            before = spent(own)
            value, whole = busy_during(work)
            used = spent(own) - before
        if not value:
            raise RigError("nothing was answered")
        return value, used / (value * seconds), whole / (value * seconds)


@dataclass(frozen=True, slots=True)
class Cell:
    """One contender at one workload."""

    value: Spread
    busy: Spread
    machine: Spread


def cell(run: Run, row: Row, kind: type[Contender]) -> Cell | None:
    """None where there is no figure."""
    found = [one for one in run.measurements if (one.workload, one.contender) == (row.name, kind.name)]
    if not found:
        return None
    return Cell(*(Spread.of([getattr(one, of) for one in found]) for of in ("value", "busy", "machine")))


def shown(row: Row, found: Cell | None) -> tuple[str, str]:
    """Median with spread, and processor time."""
    if found is None:
        return "-", ""
    value = found.value
    figures = [each / row.scale for each in (value.median, value.low, value.high)]
    text = "{:.1f} ({:.1f}-{:.1f})".format(*figures)
    own = f"{found.busy.median * 1e6:.1f} µs"
    if row.in_kernel:
        return text, f"{own}, {found.machine.median * 1e6:.1f} of the machine"
    return text, own if found.busy.median else ""


def goals(run: Run) -> Iterator[str]:
    """A line for each peer at each row: how much MarchProxy did beside it."""
    for row in ROWS:
        mine = cell(run, row, MarchProxyHttp)
        if mine is None:
            continue
        for kind in (Direct, *PEERS):
            other = cell(run, row, kind)
            if other is None:
                continue
            line = f"{row.title}: {mine.value.median / other.value.median:.2f} of {kind.title}"
            if row.in_kernel:
                work = other.machine.median / mine.machine.median
                line += f", {work:.2f} of its work for the same processor time of the machine"
            elif kind is not Direct:
                work = other.busy.median / mine.busy.median
                line += f", {work:.2f} of its work for the same processor time"
                if row.goal and kind is HAProxyHttp:
                    line += f", goal {row.goal} {'met' if work >= row.goal else 'MISSED'}"
            yield line


def markdown(run: Run) -> str:
    """The table for `PAGE`."""
    kinds = [kind for kind in CONTENDERS if kind.name in run.contenders]
    lines = ["| | " + " | ".join(kind.title for kind in kinds) + " |", "|---|" + "---|" * len(kinds)]
    for row in ROWS:
        cells = ["<br>".join(filter(None, shown(row, cell(run, row, kind)))) for kind in kinds]
        lines.append(f"| {row.title}, {row.unit} | " + " | ".join(cells) + " |")
    lines += ["", f"{run.rounds} rounds of {run.seconds} s for each figure; below it the contender's own"]
    lines[-1] += " processor time for one, and of messages by WebSocket also that of the whole machine."
    lines += ["", *(f"* {line}" for line in goals(run)), ""]
    lines += [f"* {name}: {value}" for name, value in run.machine.items()]
    lines += versions(run)
    lines += [f"* failed: {failure}" for failure in run.failures]
    return "\n".join(lines)


def show(run: Run, console: Console) -> None:
    """Print the tables and how the goals were met."""
    for row in ROWS:
        if not any(one.workload == row.name for one in run.measurements):
            continue
        table = Table(title=f"{row.title}, {row.unit}", title_justify="left", width=78)
        table.add_column("through", ratio=3)
        table.add_column("median (min-max)", ratio=4, justify="right")
        table.add_column("processor time of one", ratio=4, justify="right")
        for kind in CONTENDERS:
            if kind.name in run.contenders:
                style = "bold" if kind is MarchProxyHttp else ""
                table.add_row(kind.title, *shown(row, cell(run, row, kind)), style=style)
        console.print(table)
    for line in (*goals(run), *(f"failed: {failure}" for failure in run.failures)):
        console.print(line, highlight=False, soft_wrap=True)


def _two_or_more(text: str) -> int:
    """Seconds. With less `openssl s_time` has no whole one."""
    number = at_least_one(text)
    if number < 2:
        raise argparse.ArgumentTypeError("at least 2")
    return number


def main() -> int:
    """Exit code 1 where something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    parser.add_argument("--rounds", type=at_least_one, default=5, help="figures per cell, %(default)s")
    parser.add_argument("--seconds", type=_two_or_more, default=2, help="per figure, 2 or more, %(default)s")
    parser.add_argument("--only", nargs="+", choices=[kind.name for kind in CONTENDERS])
    parser.add_argument("--workloads", nargs="+", choices=[row.name for row in ROWS])
    parser.add_argument("--write", action="store_true", help="put the table into docs/PERFORMANCE_HTTP.md")
    options = parser.parse_args()
    kinds = [kind for kind in CONTENDERS if not options.only or kind.name in options.only]
    rows = [row for row in ROWS if not options.workloads or row.name in options.workloads]
    try:
        with Rig() as rig:
            run = measure(
                *(Bed(rig), kinds, rows, options.rounds, options.seconds),
                lambda line: print(line, file=sys.stderr, flush=True),
            )
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    run.save(RESULTS / f"http-{datetime.now(UTC):%Y%m%d-%H%M%S}.json")
    show(run, Console())
    if options.write:
        write(PAGE, "http", markdown(run))
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
