"""`python -m benchmarks.profiles WORKLOAD`: where the time goes, in Python and in the kernel's programs.

While the workload runs, py-spy takes samples of the worker (or of the daemon, where there is none), and the
kernel counts calls and time of each BPF program of ours. What takes most is printed; the stacks go to
build/profiles, in the form that flame graphs are drawn of.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.bed import HTTP, STREAM, Bed
from benchmarks.contenders import MarchProxy
from benchmarks.http import handshakes, wrk
from benchmarks.httpproxies import SECURE, MarchProxyHttp
from benchmarks.processor import family, spent
from benchmarks.tunnels import AT_ONCE, MarchProxyTunnels
from benchmarks.tunnels import command as tunnel_command
from marchproxy.dataplane.kernel.testrun import run_statistics
from marchproxy.model.errors import MarchproxyError
from rig import Appliance, Rig, RigError
from rig.host import checked
from rig.servers import ROOT

FOLDER = ROOT / "build" / "profiles"
RATE = 250
"""Samples a second."""
SHOWN = 20

type OurContender = MarchProxy | MarchProxyHttp | MarchProxyTunnels


@dataclass(frozen=True, slots=True)
class Workload:
    """What keeps an appliance busy."""

    title: str
    contender: type[OurContender]
    run: Callable[[Bed, OurContender, int], object]


def _http(measure: Callable[[Bed, str, int], float]) -> Callable[[Bed, OurContender, int], object]:
    return lambda bed, contender, seconds: measure(bed, contender.target, seconds)


WORKLOADS = {
    "http": Workload("small answers, kept connections", MarchProxyHttp, _http(wrk("--connections", "32"))),
    "https": Workload(
        "small answers under TLS", MarchProxyHttp, _http(wrk("--connections", "32", port=SECURE))
    ),
    "handshakes": Workload("TLS handshakes", MarchProxyHttp, _http(handshakes("-new"))),
    "tunnels": Workload(
        "new CONNECT tunnels",
        MarchProxyTunnels,
        lambda bed, contender, seconds: bed.rig.client.run(
            [*tunnel_command(contender, "new", seconds), str(AT_ONCE)], timeout=seconds + 20
        ),
    ),
    "packets": Workload(
        f"a stream and small requests (ports {STREAM.number}, {HTTP.number})",
        MarchProxy,
        lambda bed, contender, seconds: (
            bed.iperf(contender.target, seconds / 2),
            bed.wrk(contender.target, seconds / 2, "--connections", "32"),
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Ran:
    """What a BPF program of ours has done."""

    name: str
    calls: int
    nanoseconds: int


def programs() -> dict[int, Ran]:
    """All of ours that are loaded, by their number, with what the kernel has counted (kernel 5.1)."""
    found = json.loads(checked(["bpftool", "--json", "prog", "show"]).stdout)
    ours = (each for each in found if str(each.get("name", "")).startswith(("marchproxy", "mp_")))
    return {
        each["id"]: Ran(each["name"], each.get("run_cnt", 0), each.get("run_time_ns", 0)) for each in ours
    }


def since(before: dict[int, Ran]) -> list[Ran]:
    """What they have done since then, the busiest first; those that did nothing are left out."""
    grown = []
    for number, now in programs().items():
        then = before.get(number, Ran(now.name, 0, 0))
        if now.calls > then.calls:
            grown.append(Ran(now.name, now.calls - then.calls, now.nanoseconds - then.nanoseconds))
    return sorted(grown, key=lambda one: -one.nanoseconds)


@contextmanager
def sampled(pid: int, raw: Path) -> Iterator[None]:
    """py-spy looks at a process for as long as the block lasts; its stacks are then in `raw`."""
    spy = Path(sys.executable).with_name("py-spy")
    argv = [str(spy), "record", "--pid", str(pid), "--rate", str(RATE), "--format", "raw", "-o", str(raw)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        process.send_signal(2)
        _, said = process.communicate(timeout=20)
        if not raw.exists():
            raise RigError("py-spy took no samples", hint=said)


def weights(raw: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
    """Samples in which each frame was on top, and in which it was anywhere."""
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in raw:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        own[frames[-1]] += int(count)
        within.update({frame: int(count) for frame in set(frames)})
    return own, within


def busiest(appliance: Appliance) -> int:
    """The process to look at: the first worker, or the daemon where there is none."""
    daemon = appliance.daemon
    if daemon is None:
        raise RigError("the appliance does not run")
    return family(daemon.pid)[:2][-1]


def profile(bed: Bed, name: str, seconds: int, console: Console) -> None:
    """Run a workload, and print where its time went."""
    workload = WORKLOADS[name]
    contender = workload.contender(bed)
    FOLDER.mkdir(parents=True, exist_ok=True)
    raw = FOLDER / f"{name}.txt"
    raw.unlink(missing_ok=True)
    # One worker has all of it.
    contender.appliance.env["MARCHPROXY_WORKERS"] = "1"
    with contender.standing(), run_statistics():
        contender.wait_ready()
        pid, before = busiest(contender.appliance), programs()
        used = spent([pid])
        with sampled(pid, raw):
            workload.run(bed, contender, seconds)
        used, ran = spent([pid]) - used, since(before)
    own, within = weights(raw.read_text().splitlines())
    console.print(
        f"{workload.title}: the process used {used:.2f} s in {seconds} s; {sum(own.values())} samples"
    )
    console.print(_frames(own, within))
    console.print(_programs(ran))
    console.print(f"stacks: {raw}", highlight=False, soft_wrap=True)


def _frames(own: Counter[str], within: Counter[str]) -> Table:
    total = sum(own.values()) or 1
    table = Table(title="Python", title_justify="left")
    for column in ("itself", "with what it calls"):
        table.add_column(column, justify="right")
    table.add_column("where", overflow="fold")
    for frame, count in own.most_common(SHOWN):
        table.add_row(f"{100 * count / total:.1f} %", f"{100 * within[frame] / total:.1f} %", frame)
    return table


def _programs(ran: Sequence[Ran]) -> Table:
    table = Table(title="Programs in the kernel", title_justify="left")
    table.add_column("program")
    for column in ("calls", "ns each", "ms"):
        table.add_column(column, justify="right")
    for one in ran:
        row = (f"{one.calls:,}", f"{one.nanoseconds / one.calls:.0f}", f"{one.nanoseconds / 1e6:.0f}")
        table.add_row(one.name, *row)
    return table


def main() -> int:
    """Exit code 1 where something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiles", description=__doc__)
    parser.add_argument("workload", nargs="*", choices=list(WORKLOADS), help="all unless given")
    parser.add_argument("--seconds", type=int, default=8, help="%(default)s")
    options = parser.parse_args()
    try:
        for name in options.workload or WORKLOADS:
            with Rig() as rig:
                profile(Bed(rig), name, options.seconds, Console())
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
