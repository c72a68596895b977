"""What the figures depend on, for the record."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.bed import CONGESTION_CONTROL
from benchmarks.proxies import first_line


def facts() -> dict[str, str]:
    """Kernel, processor, tools and settings of this machine, now."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "processor": f"{os.cpu_count()} x {_after_colon('/proc/cpuinfo', 'model name')}",
        "memory": _after_colon("/proc/meminfo", "MemTotal"),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "congestion control": CONGESTION_CONTROL,
        "iperf3": first_line("iperf3", "--version"),
    }


def _after_colon(path: str, label: str) -> str:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == label:
            return value.strip()
    return "unknown"
