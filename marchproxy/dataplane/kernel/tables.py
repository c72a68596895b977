"""A plan as map entries, without I/O.

`TableBuilder.build` turns a plan into `Tables`: plain dictionaries in the terms of `bpf/marchproxy.h`, without the bank. What a
listener, pool or backend occupies is remembered by the identity of the plan's objects, which the compiler keeps where
nothing changed, so that building after one changed mapping costs a few milliseconds at 10,000 mappings. Nothing here may
depend on the order of earlier builds but the numbers that were given out.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.classes import SourceClasses
from marchproxy.dataplane.kernel.runs import Runs
from marchproxy.model.address import IPAddress
from marchproxy.policy.plan import ANYONE, Backend, Listener, Plan, Pool, Rule

type BitsKey = tuple[int, int]
"""Class and word."""

WORD = 64


@dataclass(slots=True)
class Tables:
    """Map entries of one plan. Keys and values are packed where they go to the kernel as they are."""

    listeners: dict[bytes, bytes] = field(default_factory=dict)
    """`mp_listener_key` without its bank byte, to `mp_listener`."""
    rules: dict[int, bytes] = field(default_factory=dict)
    pools: dict[int, bytes] = field(default_factory=dict)
    backends: dict[int, bytes] = field(default_factory=dict)
    sources: dict[tuple[int, bytes], int] = field(default_factory=dict)
    """Prefix length of 128 and address, to class."""
    bits: dict[BitsKey, int] = field(default_factory=dict)

    def copy(self) -> "Tables":
        """A copy to edit."""
        return Tables(
            dict(self.listeners),
            dict(self.rules),
            dict(self.pools),
            dict(self.backends),
            dict(self.sources),
            dict(self.bits),
        )


@dataclass(slots=True)
class _Placed:
    """What a listener occupies."""

    listener: Listener
    first: int
    bits: list[tuple[BitsKey, int]]


@dataclass(slots=True)
class _PlacedPool:
    """Where a pool's table starts; holding the pool keeps its identity taken."""

    pool: Pool
    first: int


class TableBuilder:
    """Builds tables for one plan after the other.

    `number_of` gives a mapping its number in flows; `source_towards` the appliance's own address towards a backend, or
    None without a route.
    """

    def __init__(
        self, number_of: Callable[[str], int], source_towards: Callable[[IPAddress], IPAddress | None]
    ) -> None:
        self._number_of = number_of
        self._source_towards = source_towards
        self._classes = SourceClasses()
        self._rule_runs = Runs("rules of listeners", layouts.RULES)
        self._pool_runs = Runs("backend slots", layouts.POOL_SLOTS)
        self._backend_runs = Runs("backends", layouts.BACKENDS)
        self._listeners: dict[bytes, _Placed] = {}
        self._pools: dict[int, _PlacedPool] = {}
        """By identity: hashing a thousand-slot table on every build would cost more than the build."""
        self._backends: dict[tuple[IPAddress, int], int] = {}
        self._tables = Tables()

    def build(self, plan: Plan) -> Tables:
        """The tables of `plan`. Raises `PlanTooLarge` when something does not fit; the builder is then of no more use."""
        changed = self._classes.update(plan.sources)
        tables = self._tables.copy()
        tables.sources = dict(self._classes.prefixes)
        wanted = {listener_key(listener): listener for listener in plan.listeners}
        stale = {key for key, placed in self._listeners.items() if self._is_stale(placed, wanted.get(key), changed)}
        for key in stale:
            self._remove(tables, key)
        for key, listener in wanted.items():
            if key not in self._listeners:
                self._place(tables, key, listener)
        self._release_unused(tables)
        self._tables = tables
        return tables

    def renew_sources(self) -> bool:
        """Ask for the own address towards every backend again; whether one changed."""
        renewed = {number: self._pack_backend(*place) for place, number in self._backends.items()}
        changed = renewed != self._tables.backends
        self._tables = self._tables.copy()
        self._tables.backends = renewed
        return changed

    def without_route(self) -> list[IPAddress]:
        """Backends to which the appliance has no own address to send from."""
        unset = layouts.ANY_V6
        return [
            address
            for (address, _), number in self._backends.items()
            if self._tables.backends[number][16:32] == unset
        ]

    @property
    def tables(self) -> Tables:
        """The tables built last."""
        return self._tables

    @staticmethod
    def _is_stale(placed: _Placed, wanted: Listener | None, changed: frozenset[str] | None) -> bool:
        if wanted is not placed.listener and wanted != placed.listener:
            return True
        if not changed:
            return False
        return any(
            rule.excluded or not changed.isdisjoint(rule.sources)
            for rule in placed.listener.rules
        )

    def _place(self, tables: Tables, key: bytes, listener: Listener) -> None:
        first = self._rule_runs.take(len(listener.rules))
        bits: list[tuple[BitsKey, int]] = []
        for number, rule in enumerate(listener.rules, start=first):
            tables.rules[number] = self._pack_rule(tables, rule)
            word, bit = divmod(number, WORD)
            bits += [((source_class, word), 1 << bit) for source_class in self._matching_classes(rule)]
        for place, mask in bits:
            tables.bits[place] = tables.bits.get(place, 0) | mask
        tables.listeners[key] = layouts.LISTENER.struct.pack(first, len(listener.rules))
        self._listeners[key] = _Placed(listener, first, bits)

    def _remove(self, tables: Tables, key: bytes) -> None:
        placed = self._listeners.pop(key)
        del tables.listeners[key]
        for number in range(placed.first, placed.first + len(placed.listener.rules)):
            del tables.rules[number]
        for place, mask in placed.bits:
            remaining = tables.bits[place] & ~mask
            if remaining:
                tables.bits[place] = remaining
            else:
                del tables.bits[place]
        self._rule_runs.give_back(placed.first, len(placed.listener.rules))

    def _matching_classes(self, rule: Rule) -> Iterable[int]:
        if rule.sources != (ANYONE,):
            return self._classes.of_services(rule.sources)
        if not rule.excluded:
            return (layouts.CLASS_ANYONE,)
        return self._classes.outside(rule.excluded)

    def _pack_rule(self, tables: Tables, rule: Rule) -> bytes:
        first, size = self._place_pool(tables, rule.pool) if rule.pool else (0, 0)
        return layouts.RULE.struct.pack(self._number_of(rule.mapping), first, size, rule.reason)

    def _place_pool(self, tables: Tables, pool: Pool) -> tuple[int, int]:
        placed = self._pools.get(id(pool))
        if placed is None:
            numbers = [layouts.U32.pack(self._place_backend(tables, backend)) for backend in pool.backends]
            first = self._pool_runs.take(len(pool.table))
            tables.pools.update({first + slot: numbers[chosen] for slot, chosen in enumerate(pool.table)})
            placed = self._pools[id(pool)] = _PlacedPool(pool, first)
        return placed.first, len(pool.table)

    def _place_backend(self, tables: Tables, backend: Backend) -> int:
        place = (backend.address, backend.port)
        number = self._backends.get(place)
        if number is None:
            number = self._backends[place] = self._backend_runs.take(1)
            tables.backends[number] = self._pack_backend(*place)
        return number

    def _pack_backend(self, address: IPAddress, port: int) -> bytes:
        source = self._source_towards(address)
        packed_source = layouts.pack_address(source) if source else layouts.ANY_V6
        return layouts.BACKEND.struct.pack(layouts.pack_address(address), packed_source, layouts.pack_port(port))

    def _release_unused(self, tables: Tables) -> None:
        used = {id(rule.pool) for placed in self._listeners.values() for rule in placed.listener.rules if rule.pool}
        released = [self._pools.pop(identity) for identity in self._pools.keys() - used]
        for placed in released:
            size = len(placed.pool.table)
            for slot in range(placed.first, placed.first + size):
                del tables.pools[slot]
            self._pool_runs.give_back(placed.first, size)
        if not released:
            return
        held = (placed.pool for placed in self._pools.values())
        backends = {(backend.address, backend.port) for pool in held for backend in pool.backends}
        for place in self._backends.keys() - backends:
            number = self._backends.pop(place)
            del tables.backends[number]
            self._backend_runs.give_back(number, 1)


def listener_key(listener: Listener) -> bytes:
    """`mp_listener_key` without its last byte, the bank."""
    return (
        layouts.pack_address(listener.address)
        + layouts.pack_port(listener.port)
        + bytes((listener.transport.number,))
    )
