"""`python -m benchmarks.soak`: does anything grow, get lost or go wrong in the long run?

Clients of every kind talk through one appliance, each byte is compared, an operator changes the configuration
every second, and with --faults something goes wrong every few seconds. A run is its seed.
"""

import argparse
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.soak.change import Operator
from benchmarks.soak.faults import ALONE, CALM, FAULTS, KILLS, LINKS, Faults
from benchmarks.soak.scene import Scene, scene
from benchmarks.soak.talk import Datagrams, Fresh, Kept, Requests, Talker, Tunnels
from benchmarks.soak.watch import Sample, grown, sample
from marchproxy.model.errors import MarchproxyError
from rig import Appliance, Host, wait_for

EVERY = 5.0
"""Seconds between two looks."""
KEPT = 20
SHOWN = 20
"""Failures of one kind of client that are told one by one."""


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    turns: dict[str, int] = field(default_factory=dict)
    excused: dict[str, int] = field(default_factory=dict)
    """Failures of clients that the faults explain."""
    changes: int = 0
    refused: int = 0
    """Changes that could not be made while the store could not be written, and said so."""
    faults: dict[str, int] = field(default_factory=dict)
    """How often each fault happened."""
    samples: list[Sample] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What must not be; empty: all is well."""


def talkers(host: Host, operator: Operator, seed: int) -> list[Talker]:
    """One of each kind, and two of those that the kernel has most to do with."""
    draw = random.Random(seed)

    def new() -> int:
        return draw.randrange(1 << 32)

    return [
        Kept(host, new(), "10.1.0.1", 7007, KEPT),
        Fresh(host, new(), "connections through a listener", "10.1.0.1", 7007),
        Fresh(host, new(), "connections through the gateway", "10.2.0.2", 7),
        Fresh(host, new(), "connections to a pool", "10.1.0.1", 7008),
        Fresh(host, new(), "connections by name", "10.1.0.1", 7009),
        Datagrams(host, new(), "10.1.0.1", 7007),
        Datagrams(host, new(), "10.2.0.2", 7),
        Requests(host, new(), "10.1.0.1", 8080),
        Tunnels(host, new(), ("10.1.0.1", 3128), ("10.2.0.2", 7), lambda: operator.token),
    ]


def soak(
    place: Scene, seconds: float, seed: int, *, faults: Sequence[str] = (), report: Callable[[str], None]
) -> Outcome:
    """Run for so long, with these faults. Raises `MarchproxyError` where it cannot begin."""
    outcome, stop = Outcome(), place.stop
    operator = place.operator = Operator(place.appliance, seed, "guarded")
    clients = talkers(place.rig.client, operator, seed)
    calm = min(CALM, seconds / 4)
    culprit = Faults(place, faults, seed, report, time.monotonic() + seconds - calm) if faults else None
    work = [*(client.talk for client in clients), operator.work, *([culprit.work] if culprit else [])]
    threads = [threading.Thread(target=each, args=(stop,), daemon=True) for each in work]
    for thread in threads:
        thread.start()
    try:
        _watch(place, seconds, threads, outcome, report, patient=culprit is not None)
        if culprit:
            culprit.wait_over(clients)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    _judge(place.appliance, clients, operator, culprit, outcome)
    return outcome


def _watch(
    place: Scene,
    seconds: float,
    threads: Sequence[threading.Thread],
    outcome: Outcome,
    report: Callable[[str], None],
    *,
    patient: bool,
) -> None:
    """`patient`: the last of the threads, which makes faults, ends before the others."""
    began = time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0:
        time.sleep(min(EVERY, left))
        needed = threads[:-1] if patient else threads
        if not all(thread.is_alive() for thread in needed):
            outcome.wrong.append("a part of the soak itself has ended")
            return
        try:
            found = sample(place.appliance, place.account, time.monotonic() - began)
        except MarchproxyError as error:
            report(f"no sample: {error.message}")
            continue
        if found:
            outcome.samples.append(found)
            report(
                f"{found.seconds:6.0f} s  {found.memory:6.1f} MB  {found.descriptors:4} descriptors  "
                f"{found.flows:6} flows  kernel {found.kernel:6.1f} MB"
            )


def _judge(
    appliance: Appliance,
    clients: Sequence[Talker],
    operator: Operator,
    culprit: Faults | None,
    outcome: Outcome,
) -> None:
    outcome.changes, outcome.refused = operator.changes, operator.refused
    outcome.wrong += [f"a change failed: {each}" for each in operator.failures]
    if culprit:
        outcome.faults = culprit.counts()
        outcome.wrong += culprit.wrong
    for client in clients:
        outcome.turns[client.name] = outcome.turns.get(client.name, 0) + client.turns
        if not client.turns:
            outcome.wrong.append(f"{client.name}: nothing went through")
        failed = (
            culprit.unexcused(client)
            if culprit
            else [f"{client.name}: {each.said}" for each in client.failures]
        )
        outcome.wrong += failed[:SHOWN]
        if len(failed) > SHOWN:
            outcome.wrong.append(f"{client.name}: {len(failed) - SHOWN} failures more")
        if client.failed:
            outcome.excused[client.name] = outcome.excused.get(client.name, 0) + client.failed - len(failed)
        if isinstance(client, Kept):
            # What a bad link has lost the client's kernel has counted all the same.
            if not LINKS.intersection(outcome.faults):
                outcome.wrong += _miscounted(appliance, client)
            client.end()
    if culprit is None:
        outcome.wrong += grown(outcome.samples)


def _miscounted(appliance: Appliance, kept: Kept) -> list[str]:
    """Connections of which the appliance says another number of packets than the kernel of their client."""

    def differing() -> list[str]:
        rows = appliance.json("flows", "--mapping", "echo")
        shown = {row["source_port"]: row for row in rows if row["protocol"] == "tcp"}
        found = []
        for port, sent, received in kept.packets():
            row = shown.get(port)
            if row is None or (row["packets_sent"], row["packets_received"]) != (sent, received):
                told = "no flow" if row is None else f"{row['packets_sent']}, {row['packets_received']}"
                found.append(f"port {port}: {sent}, {received} packets, and the appliance says {told}")
        return found

    try:
        # The last acknowledgements may wait for a moment.
        wait_for(lambda: not differing(), "counters to agree", timeout=5)
    except MarchproxyError:
        try:
            return differing()
        except MarchproxyError as error:
            return [f"nobody says how many packets there were: {error.message}"]
    return []


def _chosen(text: str) -> tuple[str, ...]:
    """The faults that `--faults` names."""
    if text == "all":
        return tuple(name for name in FAULTS if name != ALONE)
    names = tuple(text.split(","))
    unknown = ", ".join(name for name in names if name not in FAULTS)
    if unknown:
        raise argparse.ArgumentTypeError(f"no such fault: {unknown}; there are {', '.join(FAULTS)}, or all")
    return names


def main() -> int:
    """Exit code 1 where something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="%(default)s")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument(
        "--faults",
        type=_chosen,
        nargs="?",
        const=KILLS,
        default=(),
        metavar="NAMES",
        help=f"what goes wrong meanwhile, by comma, or all (but {ALONE}); without NAMES {','.join(KILLS)}. "
        f"There are {', '.join(FAULTS)}",
    )
    options = parser.parse_args()
    chosen: tuple[str, ...] = options.faults
    print(f"seed {options.seed}", flush=True)
    try:
        wires = bool(LINKS.union(("neighbour",)).intersection(chosen))
        with scene(wires=wires, clock="clock" in chosen, disk="disk" in chosen) as place:
            outcome = soak(
                *(place, options.seconds, options.seed),
                faults=chosen,
                report=lambda line: print(line, flush=True),
            )
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        print(f"seed {options.seed}: could not be run", file=sys.stderr)
        return 1
    _tell(outcome, options.seed)
    return 1 if outcome.wrong else 0


def _tell(outcome: Outcome, seed: int) -> None:
    def counted(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} {count}" for name, count in counts.items())

    print("turns: " + counted(outcome.turns))
    print(f"{outcome.changes} changes, {outcome.refused} more refused with an error that says why")
    if outcome.faults:
        print("faults: " + counted(outcome.faults))
        print("failures that they explain: " + (counted(outcome.excused) or "none"))
    for line in outcome.wrong:
        print(f"WRONG: {line}")
    print(f"seed {seed}: " + ("wrong" if outcome.wrong else "all is well"))


if __name__ == "__main__":
    sys.exit(main())
