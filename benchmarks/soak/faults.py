"""Faults by name, one after the other at random moments, and what clients may notice of each."""

import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from benchmarks.soak import links, processes, surroundings
from benchmarks.soak.scene import Scene
from benchmarks.soak.talk import Failure, Talker
from marchproxy.model.errors import MarchproxyError

LEAST, MOST = 1.0, 4.0
"""Seconds between two faults."""
CALM = 10.0
"""Seconds at the end of a run without faults, in which everybody has to be well again."""
RECOVERY = 30.0
"""Seconds that clients have after the last fault, beyond the time of the run."""

BY_WORKERS = frozenset({"requests", "tunnels"})
"""What ends with the process that carries it."""
NEW = frozenset(
    {
        *("connections through a listener", "connections through the gateway"),
        *("connections to a pool", "connections by name"),
    }
)
EVERYTHING = BY_WORKERS | NEW | {"kept connections", "datagrams"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind."""

    happens: Callable[[Scene, random.Random], None]
    """Makes it happen and, where that is part of it, takes it back; returns when it is over."""
    harms: Collection[str] = ()
    """Clients that may fail meanwhile; all others must not notice."""
    after: float = 0.0
    """Seconds after the end in which a turn of those may still begin badly."""
    within: float = 0.0
    """If not 0: seconds from the begin after which nobody may be harmed any more, though it goes on."""


FAULTS = {
    "loss": Fault(links.loss),
    "reordering": Fault(links.reordering),
    "duplication": Fault(links.duplication),
    "corruption": Fault(links.corruption),
    "delay": Fault(links.delay),
    "partition": Fault(links.partition),
    "flap": Fault(links.flap, BY_WORKERS | NEW | {"datagrams"}, 1.0),
    "removal": Fault(links.removal, BY_WORKERS | NEW | {"datagrams"}, 3.0),
    "neighbour": Fault(links.neighbour),
    "mtu": Fault(links.mtu),
    "backend": Fault(surroundings.backend, {"connections to a pool"}, within=6.0),
    "dns": Fault(surroundings.dns),
    "clock": Fault(surroundings.clock),
    "disk": Fault(surroundings.disk),
    "locked": Fault(surroundings.locked),
    "memory": Fault(surroundings.memory, BY_WORKERS, 3.0),
    "kill-daemon": Fault(processes.kill_daemon, BY_WORKERS, 1.0),
    "kill-worker": Fault(processes.kill_worker, BY_WORKERS, 2.0),
    "upgrade": Fault(processes.upgrade, BY_WORKERS, 1.0),
}
ALONE = "clock"
"""What makes it happen slows the daemon down so much that others would be judged by it."""
KILLS = ("kill-daemon", "kill-worker")
LINKS = frozenset(
    ("loss", "reordering", "duplication", "corruption", "delay", "partition", "flap", "removal", "mtu")
)
"""After which a client's kernel has counted packets that never reached the appliance."""


@dataclass(slots=True)
class Happened:
    """A fault, and when it was one. Times are monotonic."""

    name: str
    began: float
    ended: float = float("inf")

    def excuses(self, client: str, failure: Failure) -> bool:
        """Whether a client's failure may be put down to it."""
        fault = FAULTS[self.name]
        until = self.began + fault.within if fault.within else self.ended + fault.after
        return client in fault.harms and failure.ended >= self.began and failure.began <= until


class Faults:
    """Makes all of `names` happen again and again, in an order that the seed decides."""

    def __init__(
        self, scene: Scene, names: Sequence[str], seed: int, report: Callable[[str], None], until: float
    ) -> None:
        """`until`: the monotonic time after which none begins any more."""
        self.happened: list[Happened] = []
        self.wrong: list[str] = []
        self._scene, self._names, self._report, self._until = scene, names, report, until
        self._random = random.Random(seed)

    def work(self, stop: threading.Event) -> None:
        """One after the other, until the end."""
        began, bag = time.monotonic(), list[str]()
        while not stop.wait(self._random.uniform(LEAST, MOST)) and time.monotonic() < self._until:
            bag = bag or self._random.sample(self._names, len(self._names))
            fault = Happened(bag.pop(), time.monotonic())
            self.happened.append(fault)
            self._report(f"{fault.began - began:6.0f} s  {fault.name}")
            try:
                FAULTS[fault.name].happens(self._scene, self._random)
            except MarchproxyError as error:
                self.wrong.append(f"{fault.name}: {error.message} {error.hint}".strip())
            fault.ended = time.monotonic()
            self._look_after_daemon(fault)

    def wait_over(self, clients: Sequence[Talker]) -> None:
        """Until the last fault has ended and all clients are well again, but not for ever."""
        until = time.monotonic() + RECOVERY
        while self.happened and time.monotonic() < until:
            if all(client.succeeded > self.happened[-1].ended for client in clients):
                return
            time.sleep(0.1)

    def unexcused(self, client: Talker) -> list[str]:
        """Failures of a client that no fault explains, and that it was never well again."""
        found = [
            f"{client.name}: {failure.said} ({self._near(failure)})"
            for failure in client.failures
            if not any(fault.excuses(client.name, failure) for fault in self.happened)
        ]
        if self.happened and client.succeeded < self.happened[-1].ended:
            found.append(
                f"{client.name}: nothing went through after the last fault ({self.happened[-1].name})"
            )
        return found

    def counts(self) -> dict[str, int]:
        """How often each has happened."""
        return {name: sum(each.name == name for each in self.happened) for name in self._names}

    def _near(self, failure: Failure) -> str:
        before = [each for each in self.happened if each.began <= failure.ended]
        if not before:
            return "before any fault"
        last = before[-1]
        begin, end = failure.began - last.began, failure.ended - last.began
        return f"from {begin:.1f} to {end:.1f} s after the begin of {last.name}"

    def _look_after_daemon(self, fault: Happened) -> None:
        """Nothing but a kill may end it; so that the run can go on, it is started again."""
        daemon = self._scene.appliance.daemon
        if daemon is not None and daemon.running:
            return
        self.wrong.append(f"the daemon has ended: {fault.name}: {daemon.tail() if daemon else ''}")
        self._scene.start()
