"""`python -m benchmarks`: compare MarchProxy with plain routing, nftables, HAProxy and nginx."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks.bed import Bed
from benchmarks.compare import CONTENDERS, compare
from benchmarks.contenders import Routing
from benchmarks.report import publish, show
from benchmarks.results import RESULTS, Run
from benchmarks.workloads import ALL
from marchproxy.model.errors import MarchproxyError
from rig import Rig


def at_least_one(text: str) -> int:
    """A number of rounds or seconds."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=at_least_one, default=7, help="figures per cell, %(default)s")
    parser.add_argument("--seconds", type=at_least_one, default=2, help="per figure, %(default)s")
    parser.add_argument(
        "--only", nargs="+", choices=[kind.name for kind in CONTENDERS], help="beside routing"
    )
    parser.add_argument("--workloads", nargs="+", choices=[one.name for one in ALL])
    parser.add_argument("--write", action="store_true", help="put the tables into docs")
    parser.add_argument("--load", type=Path, metavar="FILE", help="show a saved run instead of measuring")
    return parser.parse_args()


def measured(options: argparse.Namespace) -> Run:
    """A new run, saved."""
    names = {Routing.name, *(options.only or [kind.name for kind in CONTENDERS])}
    wanted = options.workloads or [one.name for one in ALL]
    with Rig() as rig:
        run = compare(
            Bed(rig),
            [kind for kind in CONTENDERS if kind.name in names],
            [one for one in ALL if one.name in wanted],
            rounds=options.rounds,
            seconds=options.seconds,
            report=lambda line: print(line, file=sys.stderr, flush=True),
        )
    path = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    run.save(path)
    print(f"saved: {path}", file=sys.stderr)
    return run


def main() -> int:
    """Exit code 1 where something could not be measured."""
    options = parse()
    try:
        run = Run.load(options.load) if options.load else measured(options)
        show(run, Console())
        if options.write:
            publish(run)
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was saved", file=sys.stderr)
        return 130
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
