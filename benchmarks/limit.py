"""`python -m benchmarks.limit`: what rate limits add to the price of a packet, in nanoseconds.

The packets of an established flow, by single calls as in `benchmarks.packet`. Every round measures all
policies one after the other, so that what the machine does meanwhile meets them alike.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import repeat
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.packet import TIERS, nothing, single
from benchmarks.report import PAGE, write
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.model.errors import MarchproxyError
from marchproxy.policy.plan import RateLimit
from rig import Rig
from tests.bpf.bed import Bed, Tier, inside
from tests.bpf.packets import Udp
from tests.bpf.policies import OPEN
from tests.bpf.talk import Talk, from_client
from tests.limits import rate
from tests.policy.build import plan

DATAGRAM = from_client(Udp(40000, 80, bytes(18)))
AMPLE: dict[str, Any] = {"packets_per_second": 10**9, "bytes_per_second": 10**11}
SERVICE = {"clients": "10.1.0.0/16"}
POLICIES: dict[str, tuple[RateLimit, ...]] = {
    "no limit": (),
    "a limit for somebody else": (rate("other", "service", {"others": "10.9.0.0/16"}, **AMPLE),),
    "per source: packets": (rate("own", "source", packets_per_second=10**9),),
    "per source: packets and bytes": (rate("own", "source", **AMPLE),),
    "and per service, and in total": (
        rate("own", "source", **AMPLE),
        rate("ours", "service", SERVICE, **AMPLE),
        rate("all", "total", **AMPLE),
    ),
    "beyond the limit: dropped": (rate("own", "source", packets_per_second=1, burst=3),),
}
"""By what the table calls them; those that are not exceeded never are."""


def cost(bed: Bed, tier: Tier, limits: tuple[RateLimit, ...], count: int) -> float:
    """Of one packet, less that of a program that does nothing."""
    bed.reset()
    bed.apply(replace(plan(*OPEN), limits=limits))
    bed.settings.prepare(NatPorts(1024, 60000))
    Talk.established(bed, tier, DATAGRAM)
    with closing(nothing(tier)) as empty:
        full, bare = (
            single(bed, tier, program, repeat(DATAGRAM.build(), count))
            for program in (bed.programs[tier], empty)
        )
    return full - bare


def measure(count: int, rounds: int) -> Iterator[tuple[str, dict[Tier, float]]]:
    """Median costs by policy."""
    found: dict[tuple[str, Tier], list[float]] = {}
    with Rig() as rig, inside(rig.middle):
        bed = Bed(rig)
        for _ in range(rounds):
            for title, limits in POLICIES.items():
                for tier in TIERS:
                    found.setdefault((title, tier), []).append(cost(bed, tier, limits, count))
    for title in POLICIES:
        yield title, {tier: statistics.median(found[title, tier]) for tier in TIERS}


def rows(costs: dict[str, dict[Tier, float]]) -> Iterator[tuple[str, ...]]:
    """Cells: the cost in each tier, and what that is more than without limits."""
    plain = costs["no limit"]
    for title, found in costs.items():
        yield title, *(f"{found[tier]:.0f} ({found[tier] - plain[tier]:+.0f})" for tier in TIERS)


def main() -> int:
    """Exit code 1 where something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limit", description=__doc__)
    parser.add_argument("--count", type=int, default=3000, help="runs per figure, %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="figures per cell, %(default)s")
    parser.add_argument("--write", action="store_true", help="put the table into docs/PERFORMANCE.md")
    options = parser.parse_args()
    try:
        costs = dict(measure(options.count, options.rounds))
        titles = ("nanoseconds a packet", *(tier.upper() for tier in TIERS))
        table = Table(*titles)
        for row in rows(costs):
            table.add_row(*row)
        Console().print(table)
        if options.write:
            facts = machine.facts()
            lines = ["| " + " | ".join(row) + " |" for row in (titles, ("---",) * len(titles), *rows(costs))]
            lines += ["", f"{facts['date']}, kernel {facts['kernel']}, {facts['processor']}."]
            write(PAGE, "limit", "\n".join(lines))
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
