"""Processor time of the whole machine, as proc(5) `stat` counts it.

Whatever forwards in the kernel works in interrupts, on the account of whoever happens to run; there is no
process to ask what it used. Whole machines can be compared: client and server are the same programs and do
the same work for every contender, so what a piece of work takes more or less is the contender's.
"""

import os
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE, _WAITING, _STOLEN = 3, 4, 7
"""Fields behind `cpu`: what is none of our work."""
_SOFTIRQ = 6
_OWN = slice(11, 15)
"""Fields of a process behind its name: utime, stime, cutime, cstime."""


def busy_during[T](work: Callable[[], T]) -> tuple[T, float]:
    """What `work` returns, and the seconds that all processors together were busy meanwhile."""
    began, idle = time.monotonic(), unused_seconds(_STAT.read_text())
    result = work()
    elapsed = time.monotonic() - began
    idle = unused_seconds(_STAT.read_text()) - idle
    return result, max(0.0, elapsed * (os.cpu_count() or 1) - idle)


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of processors."""

    busy: float
    """Of the whole machine: all that was not idle."""
    softirq: float
    """Of it, in soft interrupts, where the kernel forwards; sampled a hundred times a second."""
    programs: float
    """Of programs that were started meanwhile and have ended, by getrusage(2): those that make traffic."""


def usage_during[T](work: Callable[[], T]) -> tuple[T, Usage]:
    """What `work` returns, and what processors did meanwhile."""
    softirq, programs = softirq_seconds(_STAT.read_text()), _ended()
    result, busy = busy_during(work)
    return result, Usage(busy, softirq_seconds(_STAT.read_text()) - softirq, _ended() - programs)


def _ended() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def softirq_seconds(stat: str) -> float:
    """Seconds since boot in which processors were in soft interrupts."""
    return int(stat.split("\n", 1)[0].split()[1:][_SOFTIRQ]) / os.sysconf("SC_CLK_TCK")


def unused_seconds(stat: str) -> float:
    """Seconds since boot in which processors were idle, or the hypervisor had them.

    The kernel measures idleness; time at work it only samples, a hundred times a second.
    """
    fields = stat.split("\n", 1)[0].split()[1:]
    return sum(int(fields[at]) for at in (_IDLE, _WAITING, _STOLEN)) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process, its children, and theirs."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def spent(pids: Iterable[int]) -> float:
    """Seconds of a processor that these have used, with all their threads, and children that have ended."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        ticks += sum(map(int, fields[_OWN]))
    return ticks / os.sysconf("SC_CLK_TCK")
