"""`python -m benchmarks.startup [--deb FILE]`: how long the command line takes, against what it may take.

Medians over whole processes, as an operator or a script sees them. `status` asks a stand-in for the
daemon, so that only the command is measured; `service list` reads a store with a hundred services. With a
Debian package (root) it is the command that this installs, in a folder of its own; and then also what the
package weighs, and how long its daemon takes until it tells the service manager that it is ready.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUDGETS = {"--version": 20, "--help": 80, "status": 80, "service list": 170}
"""Command line to milliseconds."""
READY_MS = 1000
DEB_MB = 30
INSTALLED_MB = 120
CHECKOUT = (sys.executable, "-m", "marchproxy")
SERVICES = 100


@dataclass(frozen=True, slots=True)
class Figure:
    """Smaller is better."""

    title: str
    value: float
    budget: int
    unit: str


_STATUS = json.dumps(
    {
        "version": "0.1.0",
        "pid": 1,
        "started": "2026-01-01T00:00:00.000Z",
        "uptime_s": 5.0,
        "healthy": True,
        "problems": [],
        "revision": {"number": 1, "sha256": "", "applied": "2026-01-01T00:00:00.000Z", "applied_ms": 1.0},
        "tier": {"name": "kernel", "reason": ""},
        "interfaces": [{"name": "eth0", "role": "inside", "mode": "auto", "attached": "tc", "problem": ""}],
        "listener_count": 0,
        "listeners": [],
        "counters": {"FORWARDED": {"packets": 12, "bytes": 3456}},
        "flow_table": [{"name": "flows", "used": 1, "limit": 100}],
        "trial": None,
        "denied": [],
        "audited": [],
        "limits": [],
        "lost_events": 0,
        "reloads": 0,
        "failed_reloads": 0,
        "names": {},
    }
).encode()


def measure(command: Sequence[str], rounds: int, environment: dict[str, str]) -> float:
    """Median milliseconds of a command line, after one run that fills the caches."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times[1:])


def measure_ready(program: Sequence[str], rounds: int, environment: dict[str, str]) -> float:
    """Median milliseconds from starting the daemon to READY=1, in networks without interfaces."""
    times = []
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as name, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            own = dict(environment)
            own |= {f"MARCHPROXY_{kind}_DIR": f"{name}/{kind}" for kind in ("STATE", "RUNTIME")}
            own |= {"MARCHPROXY_BPFFS": f"/sys/fs/bpf/{Path(name).name}", "NOTIFY_SOCKET": f"{name}/notify"}
            told.bind(f"{name}/notify")
            told.settimeout(30)
            subprocess.run([*program, "init"], env=own, capture_output=True, check=True)
            began = time.perf_counter()
            alone = ["unshare", "--net", *program]
            daemon = subprocess.Popen([*alone, "run"], env=own, stderr=subprocess.DEVNULL)
            try:
                while b"READY=1" not in told.recv(4096):
                    pass
                times.append((time.perf_counter() - began) * 1000)
            finally:
                daemon.terminate()
                daemon.wait()
                subprocess.run([*alone, "detach", "--yes"], env=own, capture_output=True, check=False)
    return statistics.median(times[1:])


@contextmanager
def appliance(program: Sequence[str] = CHECKOUT) -> Iterator[dict[str, str]]:
    """An environment with a store, and a control socket that answers `status`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"MARCHPROXY_STATE_DIR": name, "MARCHPROXY_RUNTIME_DIR": name}
        _fill(folder, program, environment)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "control.sock"))
            listening.listen()
            threading.Thread(target=_answer, args=(listening,), daemon=True).start()
            yield environment


def _fill(folder: Path, program: Sequence[str], environment: dict[str, str]) -> None:
    entries = "".join(
        f"  - {{name: s{i}, addresses: [10.0.{i // 250}.{i % 250 + 1}]}}\n" for i in range(SERVICES)
    )
    (folder / "services.yaml").write_text(f"services:\n{entries}")
    for words in (["init"], ["apply", "-f", str(folder / "services.yaml")]):
        subprocess.run([*program, *words], env=environment, cwd=ROOT, capture_output=True, check=True)


def _answer(listening: socket.socket) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(_STATUS)
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            connection.recv(65536)
            connection.sendall(head + _STATUS)


@contextmanager
def unpacked(deb: Path) -> Iterator[Path]:
    """A folder with the files of a package."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["dpkg-deb", "--extract", deb, name], check=True)
        yield Path(name)


def _commands(program: Sequence[str], rounds: int) -> Iterator[Figure]:
    with appliance(program) as environment:
        for command, budget in BUDGETS.items():
            median = measure([*program, *command.split()], rounds, environment)
            yield Figure(f"marchproxy {command}", median, budget, "ms")


def _package(deb: Path, rounds: int) -> Iterator[Figure]:
    with unpacked(deb) as folder:
        program = (str(folder / "usr/lib/marchproxy/bin/marchproxy"),)
        yield from _commands(program, rounds)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MARCHPROXY", "PYTHON"))
        }
        yield Figure("ready after start", measure_ready(program, rounds, environment), READY_MS, "ms")
    yield Figure("package", deb.stat().st_size / 1e6, DEB_MB, "MB")
    installed = subprocess.check_output(["dpkg-deb", "--field", deb, "Installed-Size"])
    yield Figure("installed, by dpkg", int(installed) * 1024 / 1e6, INSTALLED_MB, "MB")


def main() -> int:
    """Exit code 1 where something takes more than it may."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="runs of each command, %(default)s")
    parser.add_argument("--deb", type=Path, help="a Debian package, instead of this checkout (root)")
    given = parser.parse_args()
    slow = 0
    for figure in _package(given.deb, given.rounds) if given.deb else _commands(CHECKOUT, given.rounds):
        slow += figure.value > figure.budget
        print(f"{figure.title:<24} {figure.value:7.1f} {figure.unit} of {figure.budget:4}", flush=True)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
