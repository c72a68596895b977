"""`python -m benchmarks.tui`: the terminal front end on an appliance that has a million flows.

A real daemon; the flows are written into its pinned table, as packets would have made them. Textual draws
into nothing, and a key counts as answered when all that it leads to has been drawn. Flows are found and
sorted by the daemon: how long that takes, and what it costs, stands beside it. What traffic loses meanwhile
is measured by `watched`.
"""

import argparse
import asyncio
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import batched
from statistics import median, quantiles

from rich.console import Console
from rich.table import Table
from textual.pilot import Pilot

from benchmarks import machine, watched
from benchmarks.bed import Bed
from benchmarks.daemon import Figure, markdown, processor_seconds
from benchmarks.flood import gateway
from benchmarks.memory import FLOW_TABLE, MILLION
from benchmarks.report import MORE_PAGE, PAGE, write
from marchproxy import bpf
from marchproxy.client.appliance import Appliance as Client
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.layouts import FlowEntry
from marchproxy.dataplane.kernel.maps import BATCH
from marchproxy.dataplane.kernel.objects import open_pinned_map
from marchproxy.model.errors import MarchproxyError
from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.link import Link
from marchproxy.tui.views.flows import Flows
from marchproxy.tui.views.top import Top
from rig import Appliance, Rig

SIZE = (120, 40)
KEYS = 60
WATCHED = 40.0
"""Seconds that a tab is looked at for what it costs."""
PATIENCE = 120.0
ROOM = 100_000
"""In the table, for the traffic that is measured beside the million."""


def entries(flows: int) -> Iterator[tuple[bytes, bytes]]:
    """Both directions of so many established TCP connections in transit, with different counts."""
    mapped, now = bytes(10) + b"\xff\xff", time.monotonic_ns()
    server, port, nobody = mapped + bytes((10, 2, 0, 2)), (443).to_bytes(2), bytes(6)
    for number in range(flows):
        client = mapped + (10 << 24 | 1 << 16 | number & 255).to_bytes(4)
        own = (1024 + (number >> 8)).to_bytes(2)
        count = number * 7919 % 100_003 + 2
        for source, first, target, last, flags in (
            (client, own, server, port, 0),
            (server, port, client, own, layouts.FLAG_REPLY),
        ):
            entry = FlowEntry(
                *(source, target, first, last, 0, now, count, count * 700, 0, 0, 0, nobody, nobody),
                *(layouts.STATE_ESTABLISHED, flags, 1, number + 1, now, 0, 1, 0, 0),
            )
            key = layouts.FLOW_KEY.struct.pack(source, target, first, last, layouts.TCP)
            yield key, layouts.FLOW.struct.pack(*entry)


def fill(appliance: Appliance, flows: int) -> None:
    """Put them into the running daemon's table."""
    with open_pinned_map(appliance.bpffs / f"v{bpf.ABI}" / "flows") as table:
        for some in batched(entries(flows), BATCH):
            table.update_many(list(some))


class Looking:
    """Somebody at the keyboard."""

    def __init__(self, app: MarchProxyApp, pilot: Pilot[None], daemon: int) -> None:
        self._app = app
        self._pilot = pilot
        self._daemon = daemon

    async def press(self, *keys: str) -> float:
        """Seconds until all that they lead to is drawn."""
        began = time.monotonic()
        await self._pilot.press(*keys)
        return time.monotonic() - began

    async def until(self, condition: Callable[[], bool]) -> float:
        """Seconds until it is so."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() > began + PATIENCE:
                raise MarchproxyError(f"nothing came within {PATIENCE:g} s")
            await self._pilot.pause(0.02)
        return time.monotonic() - began

    async def cost(self) -> tuple[float, float]:
        """Of a processor: what the daemon takes while the tab is looked at, and what we do."""
        began = time.monotonic()
        before = processor_seconds(self._daemon), own_seconds()
        await self.until(lambda: time.monotonic() > began + WATCHED)
        used = processor_seconds(self._daemon) - before[0], own_seconds() - before[1]
        return used[0] / WATCHED, used[1] / WATCHED


def own_seconds() -> float:
    """Of a processor that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(appliance: Appliance, flows: int) -> list[Figure]:
    """Keys, pages and what they cost."""
    assert appliance.daemon is not None
    app = MarchProxyApp(Link(Client(appliance.env)))
    async with app.run_test(size=SIZE) as pilot:
        looking = Looking(app, pilot, appliance.daemon.pid)
        await looking.until(lambda: app.status is not None)
        idle = await looking.cost()
        found = [Figure("daemon's processor, overview", 100 * idle[0], "%")]
        await looking.press("2")
        view = app.view
        assert isinstance(view, Flows)
        page = await looking.until(lambda: view.total >= flows and len(view.table.records) > 0)
        found.append(Figure("first page of flows", page, "s"))
        keys = [await looking.press("down" if number % 8 else "up") for number in range(KEYS)]
        found += [
            Figure("a key to the screen, median", 1000 * median(keys), "ms"),
            Figure("a key to the screen, 19 of 20", 1000 * quantiles(keys, n=20)[-1], "ms"),
        ]
        flowing = await looking.cost()
        await looking.press("slash", *"10.1.0.77")
        narrowed = await looking.until(lambda: 0 < view.total < flows)
        await looking.press("enter", "3")
        top = app.view
        assert isinstance(top, Top)
        listed = await looking.until(lambda: len(top.table.records) > 0)
        topping = await looking.cost()
        return [
            *found,
            Figure("daemon's processor, flows", 100 * flowing[0], "%"),
            Figure("terminal's own processor, flows", 100 * flowing[1], "%"),
            Figure("another filter typed to its rows", narrowed, "s"),
            Figure("first list of top", listed, "s"),
            Figure("daemon's processor, top", 100 * topping[0], "%"),
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tui", description=__doc__)
    parser.add_argument("--flows", type=int, default=MILLION, help="%(default)s")
    parser.add_argument("--traffic", action="store_true", help="only what traffic loses")
    parser.add_argument("--rounds", type=int, default=7, help="of traffic; %(default)s")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each; %(default)s")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/PERFORMANCE*.md")
    options = parser.parse_args(arguments)
    facts = machine.facts()
    figures: list[Figure] = []
    try:
        with Rig() as rig, gateway(rig, "million") as appliance:
            appliance.cli("appliance", "set", "--flow-table", str(FLOW_TABLE + ROOM))
            appliance.start()
            fill(appliance, options.flows)
            if not options.traffic:
                figures = asyncio.run(measure(appliance, options.flows))
            found = list(watched.rounds(Bed(rig), appliance, options.flows, options.rounds, options.seconds))
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    table, losses = Table("", "measured"), Table(*watched.TITLES)
    for figure in figures:
        table.add_row(*figure.texts()[:2])
    for row in watched.rows(found):
        losses.add_row(*row)
    console = Console()
    if figures:
        console.print(table)
    console.print(losses)
    if options.write:
        load = f"Load before: {facts['load before']}."
        if figures:
            write(PAGE, "tui", f"{markdown(figures, facts)}\n\n{load}")
        write(MORE_PAGE, "tui-traffic", f"{watched.markdown(found, options.seconds)} {load}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TERM", "xterm-256color")
    sys.exit(main())
