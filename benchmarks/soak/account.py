"""What the kernel holds for the processes of a run, by a memory cgroup of their own (cgroups(7))."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from marchproxy.model.errors import MarchproxyError
from rig import wait_for

_MACHINE = re.compile(r"^(?:SUnreclaim|Percpu|VmallocUsed):\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Account:
    """On which the kernel writes what it allocates for some processes, tables of BPF programs among it."""

    group: Path | None
    """The folder of the cgroup; None: there is no memory controller, and the account is the machine's."""

    def kernel(self) -> float:
        """Megabytes that the kernel holds now, outside of the page cache.

        Version 1 of cgroups counts what it could reclaim, too: names of files, for one.
        """
        if self.group is None:
            return sum(map(int, _MACHINE.findall(Path("/proc/meminfo").read_text()))) / 1e3
        if (first := self.group / "memory.kmem.usage_in_bytes").exists():
            return int(first.read_text()) / 1e6
        found = dict(line.split() for line in (self.group / "memory.stat").read_text().splitlines())
        return held(found) / 1e6


def held(found: Mapping[str, str]) -> int:
    """Bytes of `memory.stat` that are the kernel's and stay (Documentation/admin-guide/cgroup-v2.rst).

    `kernel` is there since Linux 5.18; before it, the sum of its parts.
    """
    parts = ("kernel_stack", "pagetables", "percpu", "slab_unreclaimable")
    if "kernel" in found:
        return int(found["kernel"]) - int(found["slab_reclaimable"])
    return sum(int(found.get(part, 0)) for part in parts)


def controller(mounts: str) -> Path | None:
    """Where memory is accounted for, by `/proc/self/mountinfo` (proc(5)); None: nowhere."""
    unified = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        place = Path(before.split()[4])
        kind, _, options = after.split()[:3]
        if kind == "cgroup" and "memory" in options.split(","):
            return place
        if kind == "cgroup2":
            unified = place
    if unified is None:
        return None
    # What the root does not hand down, groups below it do not have.
    file = unified / "cgroup.subtree_control"
    return unified if file.exists() and "memory" in file.read_text().split() else None


@contextmanager
def account(name: str) -> Iterator[Account]:
    """An account of this process, and of all that it starts meanwhile."""
    place = controller(Path("/proc/self/mountinfo").read_text())
    if place is None:
        yield Account(None)
        return
    before, group = _group_of(place), place / f"{name}-{os.getpid()}"
    group.mkdir()
    _move(os.getpid(), group)
    try:
        yield Account(group)
    finally:
        # Whoever helps this process for as long as it lives goes back with it.
        with suppress(MarchproxyError):
            wait_for(lambda: _emptied(group, before), "the processes of the run to end")


def _group_of(place: Path) -> Path:
    """The cgroup that this process is in."""
    unified = (place / "cgroup.subtree_control").exists()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers.split(",").count("memory") or (not controllers and unified):
            return place / path.lstrip("/")
    return place


def _move(pid: int, group: Path) -> None:
    (group / "cgroup.procs").write_text(str(pid))


def _emptied(group: Path, into: Path) -> bool:
    for pid in (group / "cgroup.procs").read_text().split():
        with suppress(ProcessLookupError):
            _move(int(pid), into)
    # What has ended is in it until somebody has waited for it.
    with suppress(OSError):
        group.rmdir()
    return not group.exists()
