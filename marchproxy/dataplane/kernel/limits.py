"""Rate limits as map entries, without I/O but for the slots."""

from collections.abc import Callable, Iterable, Mapping
from zlib import crc32

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.entries import Place, Table, Tables
from marchproxy.dataplane.kernel.memberships import V4_ROOT, place_of
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.model.appliance import Limit, Per
from marchproxy.policy.limits import NOTHING, Allowance, Bucket, Held, allowances, classify
from marchproxy.policy.plan import RateLimit

SECOND = 1_000_000_000
"""In ns."""

type SlotsOf = Callable[[Iterable[Bucket]], Mapping[Bucket, int]]
"""Gives buckets their slots; raises `PlanTooLarge`."""


class LimitTables:
    """Keeps the tables of limits equal to those of the plan."""

    def __init__(self, tables: Tables, slots_of: SlotsOf) -> None:
        self._tables = tables
        self._slots_of = slots_of
        self._limits: tuple[RateLimit, ...] = ()
        self._slots: Mapping[Bucket, int] = {}
        self._numbers: dict[Held, int] = {NOTHING: 0}
        """Of sets; 0 is that of addresses without limits."""
        tables.limit_generations[0] = 0

    def settle(self, limits: tuple[RateLimit, ...]) -> None:
        """Take over the limits of a plan. Raises `PlanTooLarge`."""
        if limits is self._limits:
            return
        buckets = {bucket: rate.limit for rate in limits for bucket in buckets_of(rate.limit)}
        self._slots = self._slots_of(buckets)
        found = {place_of(prefix): held for prefix, held in classify(limits).items()}
        if found:
            # IPv4 lies inside ::/0, and must not find what holds there.
            found.setdefault(V4_ROOT, NOTHING)
        self._number(set(found.values()))
        sets = {number: self._pack(held) for held, number in self._numbers.items()}
        prefixes = {place: self._numbers[held] for place, held in found.items()}
        _expect_room("prefixes of limits", prefixes, layouts.LIMIT_PREFIXES)
        _expect_room("combinations of limits", sets, layouts.LIMIT_SETS)
        packed = {self._slots[bucket]: pack_limit(limit) for bucket, limit in buckets.items()}
        _replace(self._tables.limits, packed)
        _replace(self._tables.limit_sets, sets)
        _replace(self._tables.limit_prefixes, prefixes)
        _replace(self._tables.limit_generations, {0: _generation(sets, prefixes) if limits else 0})
        self._limits = limits

    def _number(self, sets: set[Held]) -> None:
        """Number the sets in use; what stays keeps its number."""
        kept = {held: number for held, number in self._numbers.items() if held in sets or held == NOTHING}
        taken = set(kept.values())
        free = (number for number in range(len(sets) + 1) if number not in taken)
        for held in sorted(sets - kept.keys()):
            kept[held] = next(free)
        self._numbers = kept

    def _pack(self, held: Held) -> bytes:
        if len(held.shared) > layouts.LIMIT_SHARED:
            names = ", ".join(f"{bucket.limit} {bucket.service}".strip() for bucket in held.shared[:3])
            raise PlanTooLarge(
                f"{len(held.shared)} limits hold for the same address ({names}, ...): "
                f"at most {layouts.LIMIT_SHARED} can, beside one per source",
                hint="use fewer limits per service or total, or exempt addresses from some",
            )
        slots = (self._slots[Bucket(name, "")] if name else layouts.LIMIT_NONE for name in held.own)
        own = b"".join(map(layouts.U16.pack, slots))
        shared = b"".join(layouts.U16.pack(self._slots[bucket]) for bucket in held.shared)
        room = 2 * layouts.LIMIT_SHARED
        return layouts.LIMIT_SET.struct.pack(own, len(held.shared), shared.ljust(room, b"\xff"))


def slots_in_order(buckets: Iterable[Bucket]) -> Mapping[Bucket, int]:
    """For tables that nobody counts by."""
    return {bucket: slot for slot, bucket in enumerate(buckets)}


def buckets_of(limit: Limit) -> list[Bucket]:
    """What a limit counts apart; the buckets of source addresses go by its one."""
    if limit.per is Per.SERVICE:
        return [Bucket(limit.name, service) for service in limit.services]
    return [Bucket(limit.name, "")]


def pack_limit(limit: Limit) -> bytes:
    """`mp_limit`."""
    paces = [(0, 0) if allowed is None else pace(allowed) for allowed in allowances(limit)]
    steps, tolerances = zip(*paces, strict=True)
    return layouts.LIMIT.struct.pack(layouts.U64_TRIPLE.pack(*steps), layouts.U64_TRIPLE.pack(*tolerances))


def pace(allowed: Allowance) -> tuple[int, int]:
    """Step and tolerance: after a burst at one instant, the next is one too many."""
    step = round((SECOND << layouts.LIMIT_SHIFT) / allowed.per_second)
    return step, (allowed.burst - 1) * step >> layouts.LIMIT_SHIFT


def _generation(sets: Mapping[int, bytes], prefixes: Mapping[Place, int]) -> int:
    """A number for whom which limits hold, the same for the same: clients keep what they were given."""
    content = repr((sorted(sets.items()), sorted(prefixes.items())))
    return crc32(content.encode()) or 1


def _replace[K, V](table: Table[K, V], entries: Mapping[K, V]) -> None:
    """Make a table hold `entries`, touching only what differs."""
    table.remove([key for key in table.entries if key not in entries])
    held = table.entries
    table.update({key: value for key, value in entries.items() if key not in held or held[key] != value})


def _expect_room[K, V](what: str, table: Mapping[K, V], limit: int) -> None:
    if len(table) > limit:
        raise PlanTooLarge(
            f"too many {what}: the kernel's table holds {limit}",
            hint="use wider prefixes, or fewer limits",
        )
