"""`python -m benchmarks.series [NAME...]`: how cost grows with sizes, connections, mappings, flows, blocks.

Without names all series are measured. What was measured is saved as JSON with the machine's facts; --write
puts tables and charts into docs/PERFORMANCE_SERIES.md and docs/plots. Names: see --list.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks import machine
from benchmarks.__main__ import at_least_one
from benchmarks.bed import Bed
from benchmarks.results import RESULTS
from benchmarks.series import blocked, conversations, live, packets
from benchmarks.series.page import AnySeries, publish, show
from benchmarks.series.results import Run
from marchproxy.model.errors import MarchproxyError
from rig import Rig

ALL: tuple[AnySeries, ...] = (*live.SERIES, *blocked.SERIES, *conversations.SERIES, *packets.SERIES)


def seconds(text: str) -> float:
    """For each figure."""
    number = float(text)
    if not 0.1 <= number <= 60:
        raise argparse.ArgumentTypeError("0.1 to 60 seconds")
    return number


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    names = [series.name for series in ALL]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.series",
        description=__doc__,
        epilog="example: python -m benchmarks.series flows blocks --rounds 3 --write",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--list", action="store_true", help="say what can be measured")
    parser.add_argument("--rounds", type=at_least_one, default=5, help="figures per cell, %(default)s")
    parser.add_argument("--seconds", type=seconds, default=1.0, help="per figure of traffic, %(default)s")
    parser.add_argument("--write", action="store_true", help="put tables and charts into docs")
    parser.add_argument("--load", type=Path, metavar="FILE", help="show a saved run instead of measuring")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in names]
    if unknown:
        parser.error(f"no such series: {', '.join(unknown)} (there are {', '.join(names)})")
    return options


def measured(wanted: Sequence[AnySeries], rounds: int, each: float) -> Run:
    """A new run, saved: also what there is of one that is stopped."""

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    run = Run(machine.facts(), rounds, each)
    try:
        measure(run, wanted, report)
    finally:
        if run.points:
            path = RESULTS / f"series-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
            run.save(path)
            report(f"saved: {path}")
    return run


def measure(run: Run, wanted: Sequence[AnySeries], report: live.Report) -> None:
    """All of them, each on a rig of its own."""
    for series in wanted:
        try:
            if isinstance(series, packets.PacketSeries):
                series.measure(run, report)
            else:
                with Rig() as rig:
                    live.measure(run, Bed(rig), series, report)
        except (MarchproxyError, OSError) as error:
            run.failures.append(f"{series.name}: {error}")
            report(run.failures[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where something could not be measured."""
    options = parse(arguments)
    wanted = [series for series in ALL if not options.names or series.name in options.names]
    if options.list:
        for series in wanted:
            print(f"{series.name:14} {series.title}, by {series.across}")
        return 0
    try:
        run = Run.load(options.load) if options.load else measured(wanted, options.rounds, options.seconds)
        show(run, wanted, Console())
        if options.write:
            publish(run, wanted)
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; --load shows what was saved", file=sys.stderr)
        return 130
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
