"""Backends that fail are left out for a while: what requests find out by themselves, without any check.

A circuit for each backend that has failed: *closed* while requests go there, *open* while they do not,
*half-open* while one of them tries. Each time that a backend is left out again it is for twice as long, up to
`LONGEST`. Not all backends of a pool are: a share stays, however many fail (`Handling.eject_most`).

Of one process: each worker finds out for itself, so a failing backend gets a few more requests from another
one. No I/O; `now` is in seconds of a clock that does not go back.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from marchproxy.dataplane.http.counts import Changes
from marchproxy.model.address import IPAddress
from marchproxy.policy.plan import Backend, Handling, Pool

LONGEST = 300.0
"""Seconds that a backend is left out at most; and for which it must do well before that is forgotten."""
TRIAL = 60.0
"""Seconds until another request may try, where nothing was heard of the one that did."""
FAILURES = frozenset({502, 503, 504})
"""Statuses that say that a backend cannot do its work. Not 500: whoever finds a page that always fails could
have every backend left out by asking for it."""

type Place = tuple[IPAddress, int, str]


@dataclass(slots=True)
class Circuit:
    """What is known of a backend that has failed."""

    failures: int = 0
    """In a row."""
    times: int = 0
    """That it was left out, since it last did well for long."""
    open: bool = False
    until: float = 0.0
    """Open: until when it is left out. Closed: until when `times` is remembered."""
    since: float = 0.0
    last: float = 0.0
    """When it failed last."""
    trial: float = 0.0
    """Open: until when nobody else tries."""
    why: str = ""


@dataclass(slots=True)
class Circuits:
    """Those of one process."""

    counts: Changes = field(default_factory=Changes)
    known: dict[Place, Circuit] = field(default_factory=dict)
    """Of backends that have failed lately. Asked for its truth where a call would be too much."""

    def __bool__(self) -> bool:
        """Whether any backend has failed lately: while none has, nobody need ask."""
        return bool(self.known)

    def __iter__(self) -> Iterator[tuple[Place, Circuit]]:
        """Those that are left out."""
        return ((place, circuit) for place, circuit in self.known.items() if circuit.open)

    def admits(self, backend: Backend, now: float) -> bool:
        """Whether a request may go there. Where the time is over, the one that asks is the trial, and
        `failed` or `succeeded` says what came of it.
        """
        circuit = self.known.get(_place(backend))
        if circuit is None or not circuit.open:
            return True
        if now < circuit.until or now < circuit.trial:
            return False
        circuit.trial = now + TRIAL
        return True

    def succeeded(self, backend: Backend, now: float) -> None:
        """A request was answered."""
        circuit = self.known.get(_place(backend))
        if circuit is None:
            return
        circuit.failures = 0
        if circuit.open:
            # Also by one that was sent before: whoever answers is there.
            circuit.open = False
            circuit.trial = 0.0
            circuit.until = now + LONGEST
            self.counts.returned += 1
        elif not circuit.times or now > circuit.until:
            del self.known[_place(backend)]

    def failed(self, backend: Backend, pool: Pool | None, handling: Handling, why: str, now: float) -> None:
        """A request was not answered, or by what is in `FAILURES`."""
        if not handling.eject_after:
            return
        circuit = self.known.setdefault(_place(backend), Circuit())
        circuit.failures += 1
        circuit.why, circuit.last = why, now
        if circuit.open:
            if circuit.trial:
                self._eject(circuit, handling, now)
            return
        again = circuit.times and now <= circuit.until
        if not again:
            circuit.times = 0
        if circuit.failures < handling.eject_after:
            return
        if not self._spared(pool, handling):
            circuit.failures = 0
            self.counts.kept += 1
            return
        circuit.open, circuit.since = True, now
        self.counts.ejected += 1
        self._eject(circuit, handling, now)

    def gave_up(self, backend: Backend) -> None:
        """Of a request nothing will be known: another one may try."""
        circuit = self.known.get(_place(backend))
        if circuit is not None:
            circuit.trial = 0.0

    def forget(self, now: float) -> None:
        """Let go of what has done well, or was not asked, for long."""
        for place, circuit in list(self.known.items()):
            if now > max(circuit.until, circuit.last, circuit.trial) + LONGEST:
                del self.known[place]

    def _eject(self, circuit: Circuit, handling: Handling, now: float) -> None:
        # An operator who says longer than the longest means it.
        longest = max(LONGEST, handling.eject_for)
        circuit.until = now + min(handling.eject_for * 2.0 ** min(circuit.times, 16), longest)
        circuit.times += 1
        circuit.trial = 0.0

    def _spared(self, pool: Pool | None, handling: Handling) -> bool:
        """Whether a pool can do without one more."""
        backends = pool.taking if pool else ()
        out = sum(1 for each in backends if (known := self.known.get(_place(each))) and known.open)
        return out + 1 <= len(backends) * handling.eject_most


def _place(backend: Backend) -> Place:
    return backend.address, backend.port, backend.service
