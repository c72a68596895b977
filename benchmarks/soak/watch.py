"""What must not grow: memory, descriptors, entries in tables, and what the kernel holds."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.processor import family
from benchmarks.soak.account import Account
from rig import Appliance


@dataclass(frozen=True, slots=True)
class Sample:
    """At one moment."""

    seconds: float
    """Since the start."""
    memory: float
    """Megabytes of daemon and workers, what they share counted once (Pss of proc(5))."""
    descriptors: int
    """Open in these."""
    flows: int
    """In the kernel's table."""
    kernel: float
    """Megabytes that the kernel holds for the run, see `Account`."""


ALLOWED = {"memory": (0.08, 4.0), "descriptors": (0.1, 8), "flows": (0.3, 100), "kernel": (0.25, 64.0)}
"""Growth from the second quarter of a run to the last: a share of it, and so much beside."""


def sample(appliance: Appliance, account: Account, seconds: float) -> Sample | None:
    """Now; None where the daemon is away."""
    daemon = appliance.daemon
    if daemon is None or not daemon.running:
        return None
    kilobytes = descriptors = 0
    for pid in family(daemon.pid):
        # Whoever ends meanwhile has nothing any more.
        with suppress(OSError):
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            kilobytes += int(found[1]) if found else 0
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
    flows, kernel = _flows(appliance), account.kernel()
    return None if flows is None else Sample(seconds, kilobytes / 1e3, descriptors, flows, kernel)


def _flows(appliance: Appliance) -> int | None:
    try:
        status = appliance.json("status", check=False)
    except ValueError:
        # It has been killed just now, and there is nobody to say anything.
        return None
    return sum(int(each["used"]) for each in status["flow_table"] if each["name"] == "flows")


def grown(samples: Sequence[Sample]) -> list[str]:
    """What has grown by more than is allowed; too few samples say nothing."""
    quarter = len(samples) // 4
    if quarter < 2:
        return []
    found = []
    for name, (share, beside) in ALLOWED.items():
        early, late = (
            median(float(asdict(each)[name]) for each in some)
            for some in (samples[quarter : 2 * quarter], samples[-quarter:])
        )
        if late > early * (1 + share) + beside:
            found.append(f"{name} grew from {early:.1f} to {late:.1f}")
    return found
