"""`python -m tests.fuzz`: hostile input to everything that reads, for as long as there is time."""

import argparse
import random
import sys
import time
from traceback import print_exc

from hypothesis import HealthCheck, given, seed, settings

from tests.fuzz.corpus import add, entries
from tests.fuzz.edits import inputs
from tests.fuzz.targets import TARGETS

ROUND = 200
"""Examples of one target before it is another's turn."""


def attempt(target: str, number: int) -> bytes | None:
    """A round of one target with that seed; the least input that crashes it, None: none did."""
    tried = [b""]

    @seed(number)
    @settings(max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(inputs([data for _, data in entries(target)]))
    def run(data: bytes) -> None:
        tried[0] = data
        TARGETS[target](data)

    try:
        run()
    except Exception:
        # Hypothesis runs the least failing example last.
        print_exc()
        return tried[0]
    return None


def main() -> int:
    """Exit code 1 where something crashed; what did is in the corpus then."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="%(default)s")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument(
        "--target", choices=TARGETS, action="append", help="may be repeated; all, if not given"
    )
    options = parser.parse_args()
    draw, names = random.Random(options.seed), options.target or list(TARGETS)
    print(f"seed {options.seed}", flush=True)
    until, rounds, found = time.monotonic() + options.seconds, 0, dict[str, str]()
    while time.monotonic() < until and len(found) < len(names):
        for name in names:
            if name in found or time.monotonic() >= until:
                continue
            data = attempt(name, draw.randrange(1 << 32))
            rounds += 1
            if data is not None:
                found[name] = str(add(name, data))
                print(f"CRASH of {name}: kept as {found[name]}", flush=True)
    print(f"seed {options.seed}: {rounds} rounds of {ROUND} inputs, {len(found)} targets crashed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
