"""What the system's Python runs, which has BCC: attach a program, tell what it finds, exit.

A script of its own that imports nothing of ours, since it runs in another Python (3.9 or later). It reads one
JSON object from stdin, `source`, `kernel`, `duration` (seconds), `kind`, `reasons`, `backends` and `scope`
(as `scope.py` makes it; empty: all is told), and prints JSON lines: `ready`, events as they happen, and
totals at the end, which comes early when stdin is closed.
"""

import ctypes
import json
import os
import select
import socket
import sys
import time
from typing import Any, Dict, List, Tuple

Row = Dict[str, Any]

WHAT = {1: "connect", 2: "request", 3: "refused"}
WHO = {1: "passed", 2: "own"}
SLICE = 0.1
"""Seconds between two looks at whether it is time to end."""


def main() -> int:
    job = json.loads(sys.stdin.readline())
    os.environ["BCC_KERNEL_SOURCE"] = job["kernel"]
    try:
        from bcc import BPF
    except ImportError as error:
        return fail("missing", str(error))
    try:
        bpf = BPF(text=job["source"], cflags=["-I" + job["kernel"] + "/include", "-Wno-macro-redefined"])
    except Exception as error:
        return fail("refused", str(error))
    confine(bpf, job["scope"])
    tell = {"latency": None, "retransmits": retransmit, "drops": drop}[job["kind"]]
    for address, port in job["backends"]:
        key = bpf["backends"].Key()
        key.address[:] = pack(address)
        key.port = port
        bpf["backends"][key] = bpf["backends"].Leaf(1)
    if tell:
        offset = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)

        # BCC knows no struct within a struct.
        class Event(ctypes.Structure):
            _fields_ = [("time", ctypes.c_uint64), ("about", bpf["totals"].Key)]

        def take(_cpu: int, data: Any, _size: int) -> None:
            event = ctypes.cast(data, ctypes.POINTER(Event)).contents
            when = (event.time + offset) / 1e9
            say({"kind": job["kind"][:-1], "time": when, **tell(bpf, job, event.about)})

        bpf["events"].open_perf_buffer(take, page_cnt=64)
    say({"kind": "ready"})
    wait(bpf, time.monotonic() + job["duration"])
    for row in totals(bpf, job):
        say(row)
    missed = sum(int(each.value) for each in bpf["unsaid"].values())
    say({"kind": "end", "untold": missed})
    return 0


def confine(bpf: Any, scope: Row) -> None:
    """Fill the maps of `bpf/trace/scope.h`. What happens before is not told."""
    for address, bits in scope.get("services", ()):
        key = bpf["services"].Key()
        key.address[:] = pack(address)
        key.length = bits if ":" in address else 96 + bits
        bpf["services"][key] = bpf["services"].Leaf(1)
    for address, port, protocol in scope.get("places", ()):
        key = bpf["places"].Key()
        key.address[:] = pack(address) if address else bytes(16)
        key.port, key.protocol = port, protocol
        bpf["places"][key] = bpf["places"].Leaf(1)
    for address in scope.get("own", ()):
        key = bpf["own"].Key()
        key.address[:] = pack(address)
        bpf["own"][key] = bpf["own"].Leaf(1)
    for name in scope.get("interfaces", ()):
        key = bpf["attached"].Key()
        key.text = name.encode()
        bpf["attached"][key] = bpf["attached"].Leaf(1)


def wait(bpf: Any, deadline: float) -> None:
    """Tell events until then, or until nobody wants them any more."""
    while time.monotonic() < deadline:
        if select.select([sys.stdin], [], [], 0)[0]:
            return
        left = max(0.0, min(SLICE, deadline - time.monotonic()))
        if "events" in bpf.tables and bpf.perf_buffers:
            bpf.perf_buffer_poll(timeout=int(left * 1000) + 1)
        else:
            time.sleep(left)


def totals(bpf: Any, job: Row) -> List[Row]:
    if job["kind"] == "latency":
        return latencies(bpf)
    tell = retransmit if job["kind"] == "retransmits" else drop
    return [
        {"kind": "total", **tell(bpf, job, key), "count": value.value} for key, value in bpf["totals"].items()
    ]


def latencies(bpf: Any) -> List[Row]:
    found: Dict[Tuple[str, int, str], Row] = {}
    for key, value in bpf["slots"].items():
        row = latency(found, key.backend, key.port, WHAT[key.what])
        row["slots"][str(key.slot)] = value.value
        row["count"] += value.value
    for key, value in bpf["sums"].items():
        latency(found, key.backend, key.port, WHAT[key.what])["total_ns"] = value.value
    for key, state in bpf["connections"].items():
        if state.opened:
            row = latency(found, key.destination, key.destination_port, "unanswered")
            row["count"] += 1
    return list(found.values())


def latency(found: Dict[Tuple[str, int, str], Row], address: Any, port: int, what: str) -> Row:
    backend = unpack(address)
    row = {
        "kind": "latency",
        "backend": backend,
        "port": port,
        "what": what,
        "count": 0,
        "total_ns": 0,
        "slots": {},
    }
    return found.setdefault((backend, port, what), row)


def retransmit(_bpf: Any, _job: Row, about: Any) -> Row:
    return {**ends(about.ends), "sender": WHO.get(about.who, "")}


def drop(bpf: Any, job: Row, about: Any) -> Row:
    function = bpf.ksym(about.location, show_offset=False).decode()
    reason = job["reasons"].get(str(about.reason), str(about.reason))
    known = ends(about.ends)
    if not about.known:
        known = dict.fromkeys(known)
    device = about.device.text.decode(errors="replace")
    return {
        **known,
        "ethertype": about.ethertype,
        "interface": device,
        "reason": reason,
        "function": function,
    }


def ends(found: Any) -> Row:
    return {
        "source": unpack(found.source),
        "source_port": found.source_port,
        "destination": unpack(found.destination),
        "destination_port": found.destination_port,
        "protocol": found.protocol,
    }


def pack(address: str) -> bytes:
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address)
    return bytes(10) + b"\xff\xff" + socket.inet_aton(address)


def unpack(raw: Any) -> str:
    data = bytes(bytearray(raw))
    if data.startswith(bytes(10) + b"\xff\xff"):
        return socket.inet_ntoa(data[12:])
    return socket.inet_ntop(socket.AF_INET6, data)


def say(document: Row) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def fail(name: str, message: str) -> int:
    say({"kind": "error", "name": name, "message": message})
    return 1


if __name__ == "__main__":
    sys.exit(main())
