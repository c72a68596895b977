"""`python -m benchmarks.startup`: how long the command line takes to answer, against what it may take.

Medians over whole processes, as an operator or a script sees them. `status` asks a stand-in for the
daemon, so that only the command is measured; `service list` reads a store with a hundred services.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUDGETS = {"--version": 20, "--help": 80, "status": 80, "service list": 150}
"""Command line to milliseconds."""
SERVICES = 100

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
        "lost_events": 0,
        "reloads": 0,
        "failed_reloads": 0,
        "names": {},
    }
).encode()


def measure(command: str, rounds: int, environment: dict[str, str]) -> float:
    """Median milliseconds of a command line, after one run that fills the caches."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "marchproxy", *command.split()],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times[1:])


@contextmanager
def appliance() -> Iterator[dict[str, str]]:
    """An environment with a store, and a control socket that answers `status`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"MARCHPROXY_STATE_DIR": name, "MARCHPROXY_RUNTIME_DIR": name}
        _fill(folder, environment)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "control.sock"))
            listening.listen()
            threading.Thread(target=_answer, args=(listening,), daemon=True).start()
            yield environment


def _fill(folder: Path, environment: dict[str, str]) -> None:
    entries = "".join(
        f"  - {{name: s{i}, addresses: [10.0.{i // 250}.{i % 250 + 1}]}}\n" for i in range(SERVICES)
    )
    (folder / "services.yaml").write_text(f"services:\n{entries}")
    for words in (["init"], ["apply", "-f", str(folder / "services.yaml")]):
        subprocess.run(
            [sys.executable, "-m", "marchproxy", *words],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            check=True,
        )


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


def main() -> int:
    """Exit code 1 where a command takes longer than it may."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="runs of each command, %(default)s")
    rounds = parser.parse_args().rounds
    slow = 0
    with appliance() as environment:
        for command, budget in BUDGETS.items():
            median = measure(command, rounds, environment)
            slow += median > budget
            print(f"marchproxy {command:<14} {median:6.1f} ms of {budget:3} ms")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
