"""`python -m benchmarks.daemon`: what the daemon costs, how fast it starts, how it bears a large policy."""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.bed import DATAGRAMS, Bed
from benchmarks.contenders import MarchProxy
from benchmarks.policies import large
from benchmarks.report import PAGE, write
from benchmarks.results import RESULTS
from benchmarks.workloads import ping_pong
from marchproxy.model.errors import MarchproxyError
from rig import Process, Rig, RigError
from rig.traffic import ask_udp

SIZE = 10_000
"""Services, and as many mappings."""
SETTLING_SECONDS = 5.0
"""What starting leaves to be done, such as the second bank of the policy tables, is not idleness."""
IDLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: smaller is better, except for shares."""

    title: str
    value: float
    unit: str
    goal: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the goal is reached; without a goal, always."""
        if self.goal is None:
            return True
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def texts(self) -> tuple[str, str, str]:
        """Title, value and goal as shown."""
        sign = "at least" if self.at_least else "at most"
        goal = "" if self.goal is None else f"{sign} {self.goal:g} {self.unit}".strip()
        return self.title, f"{self.value:.3g} {self.unit}".strip(), goal


def cold_start(contender: MarchProxy) -> Figure:
    """From starting the command to the first datagram that is answered through the kernel."""
    return Figure("cold start to first forwarded packet", median(_starts(contender, 5)), "s", 1.0)


def _starts(contender: MarchProxy, times: int) -> Iterator[float]:
    client = contender.bed.rig.client
    for _ in range(times):
        started = time.monotonic()
        daemon = contender.appliance.spawn()
        client.call(_until_answered, contender.target, daemon)
        yield time.monotonic() - started
        contender.wait_ready()
        contender.appliance.wait_ready()
        contender.appliance.detach()


def _until_answered(target: str, daemon: Process) -> None:
    while daemon.running:
        try:
            ask_udp(target, DATAGRAMS.number, b"there?", timeout=0.002)
        except OSError:
            continue
        return
    raise RigError(f"marchproxy run ended with {daemon.wait()}", hint=daemon.tail())


def idle(contender: MarchProxy) -> Iterator[Figure]:
    """Memory and processor time with nothing to do."""
    daemon = contender.appliance.daemon
    assert daemon is not None
    time.sleep(SETTLING_SECONDS)
    before = processor_seconds(daemon.pid)
    time.sleep(IDLE_SECONDS)
    used = processor_seconds(daemon.pid) - before
    yield Figure("idle: resident memory", _resident(daemon.pid), "MB", 60)
    yield Figure("idle: processor", 100 * used / IDLE_SECONDS, "%", 0.5)


def processor_seconds(pid: int) -> float:
    """That a process has used."""
    # Fields 14 and 15 of proc(5) stat, counted behind the command, which may contain spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def large_policy(contender: MarchProxy) -> Iterator[Figure]:
    """10,000 services and mappings: carried out whole, changed in one place, and what flows notice of it."""
    appliance, bed = contender.appliance, contender.bed
    small = json.loads(appliance.cli("export").stdout)
    policies = {"small": small, "large": large(small, SIZE)}
    # So that the large policy's backends have a route, as backends do.
    bed.rig.middle.ip(f"route add 198.18.0.0/15 via {contender.server}")
    speeds: dict[str, list[float]] = {"small": [], "large": []}
    applied: list[float] = []
    for name in ("small", "large") * 3:
        appliance.configure(policies[name])
        if name == "large":
            applied.append(_applied(contender))
        speeds[name].append(ping_pong(bed, contender.target, 2))
    yield Figure(f"{SIZE:,} services and mappings: compiled and applied", max(applied), "s", 2.0)
    yield from _changes(contender, 5)
    share = median(after / before for before, after in zip(speeds["small"], speeds["large"], strict=True))
    yield Figure("ping-pong beside them, share of the small policy's", share, "", 0.95, at_least=True)
    yield from _restart(contender)


def _applied(contender: MarchProxy) -> float:
    """Seconds that the daemon took for the newest revision, from reading the store to the last change."""
    status = contender.appliance.json("status", check=False)
    newest = contender.appliance.json("revision", "list")[0]["sha256"]
    if status["sha256"] != newest:
        raise RigError(
            "the daemon has not taken over the newest revision", hint="; ".join(status["problems"])
        )
    return float(status["applied_ms"]) / 1000


def _changes(contender: MarchProxy, times: int) -> Iterator[Figure]:
    commands, daemons = [], []
    for number in range(times):
        started = time.monotonic()
        contender.appliance.cli("mapping", "set", f"m{SIZE // 2}", "--priority", str(50 + number))
        commands.append(time.monotonic() - started)
        daemons.append(_applied(contender))
    yield Figure("one of them changed, in the daemon", median(daemons) * 1000, "ms", 50)
    yield Figure("one of them changed, the whole command", median(commands) * 1000, "ms")


def _restart(contender: MarchProxy) -> Iterator[Figure]:
    appliance = contender.appliance
    appliance.stop()
    started = time.monotonic()
    appliance.start()
    yield Figure("restarted with them, until it serves", time.monotonic() - started, "s")
    daemon = appliance.daemon
    assert daemon is not None
    yield Figure("resident memory with them", _resident(daemon.pid), "MB")


@contextmanager
def contender() -> Iterator[MarchProxy]:
    """MarchProxy on a bed of its own."""
    with Rig() as rig:
        yield MarchProxy(Bed(rig))


def measure() -> Iterator[Figure]:
    """All figures, as they are found."""
    with contender() as it:
        yield cold_start(it)
        with it.standing():
            it.wait_ready()
            yield from idle(it)
            yield from large_policy(it)


def show(figures: list[Figure], console: Console) -> None:
    """The table."""
    table = Table(title="the daemon", title_justify="left")
    for name in ("", "measured", "goal", ""):
        table.add_column(name, justify="right" if name == "measured" else "left")
    for figure in figures:
        verdict = "" if figure.goal is None else "met" if figure.met else "MISSED"
        table.add_row(*figure.texts(), verdict)
    console.print(table)


def markdown(figures: list[Figure], facts: dict[str, str]) -> str:
    """The table for docs/PERFORMANCE.md."""
    lines = ["| | measured | goal |", "|---|---|---|"]
    lines += [f"| {' | '.join(figure.texts())} |" for figure in figures]
    lines += ["", f"{facts['date']}, kernel {facts['kernel']}, {facts['processor']}."]
    return "\n".join(lines)


def main() -> int:
    """Exit code 1 where something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.daemon", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/PERFORMANCE.md")
    options = parser.parse_args()
    facts = machine.facts()
    figures: list[Figure] = []
    try:
        for figure in measure():
            figures.append(figure)
            print("  ".join(figure.texts()), file=sys.stderr, flush=True)
        show(figures, Console())
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"daemon-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
        path.write_text(json.dumps({"machine": facts, "figures": [asdict(one) for one in figures]}, indent=1))
        if options.write:
            write(PAGE, "daemon", markdown(figures, facts))
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was saved", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
