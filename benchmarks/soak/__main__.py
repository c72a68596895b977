"""`python -m benchmarks.soak`: does anything grow, get lost or go wrong in the long run?

Clients of every kind talk through one appliance, each byte is compared, an operator changes the configuration
every second, and with --faults daemon and workers are killed at random. A run is its seed.
"""

import argparse
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.soak.change import Operator
from benchmarks.soak.faults import Faults
from benchmarks.soak.talk import Datagrams, Fresh, Kept, Requests, Talker, Tunnels
from benchmarks.soak.watch import Sample, grown, sample
from marchproxy.model.errors import MarchproxyError
from rig import Appliance, Rig, wait_for
from rig.servers import start_echo, start_http

EVERY = 5.0
"""Seconds between two looks."""
KEPT = 20
CONFIGURATION = """
interfaces:
  - {name: inside0, role: inside}
  - {name: outside0, role: outside, masquerade: true}
services:
  - {name: lan, addresses: [10.1.0.0/24]}
  - {name: echo, addresses: [10.2.0.2], port: 7}
  - {name: web, addresses: [10.2.0.2], port: 80}
  - {name: far, addresses: [10.2.0.2]}
  - {name: guarded, addresses: [10.2.0.2], auth: token}
  - {name: idle, addresses: [198.51.100.200], port: 9}
mappings:
  - {name: echo, sources: [lan], destinations: [echo], protocols: [tcp, udp], listen: "10.1.0.1:7007"}
  - {name: gateway, sources: [lan], destinations: [far], protocols: [tcp, udp], ports: "7"}
  - {name: web, sources: [lan], destinations: [web], protocols: [http], listen: "10.1.0.1:8080"}
  - {name: ban, sources: [lan], destinations: [web], protocols: [http], listen: "10.1.0.1:8080",
     path_prefix: /admin, action: deny}
  - {name: tunnels, sources: [lan], destinations: [guarded], protocols: [tcp], ports: "7",
     auth_required: true, priority: 200}
listeners:
  - {kind: explicit, bind: "10.1.0.1:3128"}
"""


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    turns: dict[str, int] = field(default_factory=dict)
    changes: int = 0
    killed: tuple[int, int] = (0, 0)
    """Daemons and workers."""
    samples: list[Sample] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What must not be; empty: all is well."""


def talkers(rig: Rig, operator: Operator, seed: int) -> list[Talker]:
    """One of each kind, and two of those that the kernel has most to do with."""
    host, draw = rig.client, random.Random(seed)

    def new() -> int:
        return draw.randrange(1 << 32)

    return [
        Kept(host, new(), "10.1.0.1", 7007, KEPT),
        Fresh(host, new(), "connections through a listener", "10.1.0.1", 7007),
        Fresh(host, new(), "connections through the gateway", "10.2.0.2", 7),
        Datagrams(host, new(), "10.1.0.1", 7007),
        Datagrams(host, new(), "10.2.0.2", 7),
        Requests(host, new(), "10.1.0.1", 8080),
        Tunnels(host, new(), ("10.1.0.1", 3128), ("10.2.0.2", 7), lambda: operator.token),
    ]


def soak(
    rig: Rig, appliance: Appliance, seconds: float, seed: int, *, faults: bool, report: Callable[[str], None]
) -> Outcome:
    """Run for so long. Raises `MarchproxyError` where it cannot begin."""
    outcome, stop = Outcome(), threading.Event()
    operator = Operator(appliance, seed, "guarded")
    clients = talkers(rig, operator, seed)
    killer = Faults(appliance, operator, seed) if faults else None
    work = [*(client.talk for client in clients), operator.work, *([killer.work] if killer else [])]
    threads = [threading.Thread(target=each, args=(stop,), daemon=True) for each in work]
    for thread in threads:
        thread.start()
    try:
        _watch(appliance, seconds, threads, outcome, report)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    _judge(appliance, clients, operator, killer, outcome)
    return outcome


def _watch(
    appliance: Appliance,
    seconds: float,
    threads: Sequence[threading.Thread],
    outcome: Outcome,
    report: Callable[[str], None],
) -> None:
    began = time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0:
        time.sleep(min(EVERY, left))
        if not all(thread.is_alive() for thread in threads):
            outcome.wrong.append("a part of the soak itself has ended")
            return
        try:
            found = sample(appliance, time.monotonic() - began)
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
    killer: Faults | None,
    outcome: Outcome,
) -> None:
    outcome.changes = operator.changes
    outcome.wrong += [f"a change failed: {each}" for each in operator.failures]
    if killer:
        outcome.killed = killer.daemons, killer.workers
    for client in clients:
        outcome.turns[client.name] = outcome.turns.get(client.name, 0) + client.turns
        # What a worker carries ends with it; clients then begin anew.
        borne = killer is not None and not client.outlives_workers
        if not client.turns:
            outcome.wrong.append(f"{client.name}: nothing went through")
        if client.failed and not borne:
            outcome.wrong += [f"{client.failed} failures of {client.name}", *client.failures]
        if isinstance(client, Kept):
            outcome.wrong += _miscounted(appliance, client)
            client.end()
    if killer is None:
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
        return differing()
    return []


def main() -> int:
    """Exit code 1 where something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="%(default)s")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--faults", action="store_true", help="kill daemon and workers meanwhile")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    try:
        with Rig() as rig, Appliance(rig, name="soak") as appliance:
            start_echo(rig.server)
            start_http(rig.server)
            appliance.cli("init")
            appliance.cli("apply", "-f", "-", "--yes", stdin=CONFIGURATION)
            appliance.start()
            outcome = soak(
                *(rig, appliance, options.seconds, options.seed),
                faults=options.faults,
                report=lambda line: print(line, flush=True),
            )
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    print("turns: " + ", ".join(f"{name} {count}" for name, count in outcome.turns.items()))
    print(f"{outcome.changes} changes, {outcome.killed[0]} daemons and {outcome.killed[1]} workers killed")
    for line in outcome.wrong:
        print(f"WRONG: {line}")
    print(f"seed {options.seed}: " + ("wrong" if outcome.wrong else "all is well"))
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
