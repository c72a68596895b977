"""Where pools and their backends lie in the kernel's tables."""

import functools
from collections import Counter
from collections.abc import Callable

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.entries import Tables
from marchproxy.dataplane.kernel.runs import Runs
from marchproxy.model.address import IPAddress
from marchproxy.policy.plan import Backend, Pool

type SourceTowards = Callable[[IPAddress], IPAddress | None]
"""The appliance's own address towards another; None without a route."""


class _Placed:
    """A pool in the table. Holding it keeps its identity taken."""

    __slots__ = ("first", "pool", "rules")

    def __init__(self, pool: Pool, first: int) -> None:
        self.pool = pool
        self.first = first
        self.rules = 0
        """How many use it."""


class PoolTables:
    """Keeps `pools` and `backends` equal to the pools in use.

    Pools are told apart by identity: hashing tables of thousands of slots would cost more than writing them.
    """

    def __init__(self, tables: Tables, source_towards: SourceTowards) -> None:
        self._slots = tables.pools
        self._backends = tables.backends
        self._source_towards = source_towards
        self._slot_runs = Runs("backend slots", layouts.POOL_SLOTS)
        self._backend_runs = Runs("backends", layouts.BACKENDS)
        self._placed: dict[int, _Placed] = {}
        self._idle: set[int] = set()
        self._numbers: dict[tuple[IPAddress, int], int] = {}
        self._users: Counter[tuple[IPAddress, int]] = Counter()

    def enter(self, pool: Pool) -> int:
        """One more rule uses the pool; its first slot. Raises `PlanTooLarge`."""
        placed = self._placed.get(id(pool)) or self._place(pool)
        placed.rules += 1
        self._idle.discard(id(pool))
        return placed.first

    def leave(self, pool: Pool) -> None:
        """One rule less uses the pool. Until `tidy` it stays, for a rule that may take its place."""
        placed = self._placed[id(pool)]
        placed.rules -= 1
        if not placed.rules:
            self._idle.add(id(pool))

    def tidy(self) -> None:
        """Free what no rule uses any more."""
        for placed in map(self._placed.pop, self._idle):
            size = len(placed.pool.table)
            self._slots.remove(range(placed.first, placed.first + size))
            self._slot_runs.give_back(placed.first, size)
            for backend in placed.pool.backends:
                self._remove_backend((backend.address, backend.port))
        self._idle.clear()

    def renew_sources(self) -> bool:
        """Ask for the own address towards every backend again; whether one changed."""
        towards = functools.cache(self._source_towards)
        packed = {number: _pack(place, towards) for place, number in self._numbers.items()}
        changed = dict(packed.items() - self._backends.entries.items())
        self._backends.update(changed)
        return bool(changed)

    def without_route(self) -> list[IPAddress]:
        """Backends to which the appliance has no own address to send from."""
        entries, nowhere = self._backends.entries, layouts.ANY_V6
        stranded = {place[0] for place, number in self._numbers.items() if entries[number][16:32] == nowhere}
        return sorted(stranded, key=lambda address: (address.version, int(address)))

    def _place(self, pool: Pool) -> _Placed:
        numbers = [layouts.U32.pack(self._add_backend(backend)) for backend in pool.backends]
        placed = _Placed(pool, self._slot_runs.take(len(pool.table)))
        self._slots.update({slot: numbers[index] for slot, index in enumerate(pool.table, placed.first)})
        self._placed[id(pool)] = placed
        return placed

    def _add_backend(self, backend: Backend) -> int:
        place = (backend.address, backend.port)
        self._users[place] += 1
        number = self._numbers.get(place)
        if number is None:
            number = self._numbers[place] = self._backend_runs.take(1)
            self._backends[number] = _pack(place, self._source_towards)
        return number

    def _remove_backend(self, place: tuple[IPAddress, int]) -> None:
        self._users[place] -= 1
        if not self._users[place]:
            del self._users[place]
            number = self._numbers.pop(place)
            del self._backends[number]
            self._backend_runs.give_back(number, 1)


def _pack(place: tuple[IPAddress, int], source_towards: SourceTowards) -> bytes:
    address, port = place
    source = source_towards(address)
    own = layouts.pack_address(source) if source else layouts.ANY_V6
    return layouts.BACKEND.struct.pack(layouts.pack_address(address), own, layouts.pack_port(port))
