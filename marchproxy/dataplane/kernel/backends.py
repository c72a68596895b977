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
type _Site = tuple[IPAddress, int, int]
"""Address, port and weight of a backend: two services may weigh the same place differently."""

_NO_TURN = layouts.U32.pack(0)


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

    Each pool's slots are followed by one in which the programs count turns. Pools are told apart by identity:
    hashing tables of thousands of slots would cost more than writing them.
    """

    def __init__(self, tables: Tables, source_towards: SourceTowards) -> None:
        self._slots = tables.pools
        self._backends = tables.backends
        self._source_towards = source_towards
        self._slot_runs = Runs("backend slots", layouts.POOL_SLOTS)
        self._backend_runs = Runs("backends", layouts.BACKENDS)
        self._placed: dict[int, _Placed] = {}
        self._idle: set[int] = set()
        self._numbers: dict[_Site, int] = {}
        self._users: Counter[_Site] = Counter()

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
            size = len(placed.pool.table) + 1
            self._slots.remove(range(placed.first, placed.first + size))
            self._slot_runs.give_back(placed.first, size)
            for backend in placed.pool.backends:
                self._remove_backend((backend.address, backend.port, backend.weight))
        self._idle.clear()

    def renew_sources(self) -> bool:
        """Ask for the own address towards every backend again; whether one changed."""
        towards = functools.cache(self._source_towards)
        packed = {number: _pack(site, towards) for site, number in self._numbers.items()}
        changed = dict(packed.items() - self._backends.entries.items())
        self._backends.update(changed)
        return bool(changed)

    def without_route(self) -> list[IPAddress]:
        """Backends to which the appliance has no own address to send from."""
        entries, nowhere = self._backends.entries, layouts.ANY_V6
        stranded = {site[0] for site, number in self._numbers.items() if entries[number][16:32] == nowhere}
        return sorted(stranded, key=lambda address: (address.version, int(address)))

    def _place(self, pool: Pool) -> _Placed:
        numbers = [layouts.U32.pack(self._add_backend(backend)) for backend in pool.backends]
        size = len(pool.table)
        placed = _Placed(pool, self._slot_runs.take(size + 1))
        slots = {slot: numbers[index] for slot, index in enumerate(pool.table, placed.first)}
        self._slots.update(slots | {placed.first + size: _NO_TURN})
        self._placed[id(pool)] = placed
        return placed

    def _add_backend(self, backend: Backend) -> int:
        site = (backend.address, backend.port, backend.weight)
        self._users[site] += 1
        number = self._numbers.get(site)
        if number is None:
            number = self._numbers[site] = self._backend_runs.take(1)
            self._backends[number] = _pack(site, self._source_towards)
        return number

    def _remove_backend(self, site: _Site) -> None:
        self._users[site] -= 1
        if not self._users[site]:
            del self._users[site]
            number = self._numbers.pop(site)
            del self._backends[number]
            self._backend_runs.give_back(number, 1)


def _pack(site: _Site, source_towards: SourceTowards) -> bytes:
    address, port, weight = site
    source = source_towards(address)
    own = layouts.pack_address(source) if source else layouts.ANY_V6
    return layouts.BACKEND.struct.pack(layouts.pack_address(address), own, layouts.pack_port(port), weight)
