"""Slots of rate limits: what is counted, under a number that the counters keep."""

from collections.abc import Iterable, Mapping

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.libbpf import possible_cpus
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.dataplane.records import LimitState, Traffic
from marchproxy.policy.limits import Bucket


class LimitSlots:
    """Numbers from 0 for buckets, in the kernel beside what they number, so that a restart finds them again.

    When they are used up, that of a bucket nobody wants any more is given to another, and starts at zero.
    """

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._names = maps["limit_names"]
        self._counters = maps["limit_counters"]
        self._buckets = maps["limit_buckets"]
        named = {layouts.U32.unpack(key)[0]: _bucket(value) for key, value in self._names.items()}
        self._known = {bucket: slot for slot, bucket in named.items() if bucket}
        self._wanted: dict[Bucket, int] = {}

    def settle(self, buckets: Iterable[Bucket]) -> Mapping[Bucket, int]:
        """The slots of `buckets`. Those of the last call keep theirs meanwhile. Raises `PlanTooLarge`."""
        wanted = list(buckets)
        held = {self._known[bucket] for bucket in (*wanted, *self._wanted) if bucket in self._known}
        named = set(self._known.values())
        # What never had a name first: an earlier daemon's limits may still be in force.
        free = iter(sorted(set(range(layouts.LIMITS)) - held, key=lambda slot: (slot in named, slot)))
        for bucket in wanted:
            if bucket not in self._known:
                self._give(next(free, None), bucket)
        self._wanted = {bucket: self._known[bucket] for bucket in wanted}
        return self._wanted

    def states(self) -> list[LimitState]:
        """What each limit of the last call has let through and dropped, in the order of that call."""
        found: dict[str, tuple[Traffic, Traffic]] = {}
        for bucket, slot in self._wanted.items():
            passed, dropped = found.get(bucket.limit, (Traffic(), Traffic()))
            cells = map(
                layouts.LIMIT_COUNTER.struct.unpack, self._counters.get_percpu(layouts.U32.pack(slot))
            )
            counts = [sum(column) for column in zip(*cells, strict=True)]
            found[bucket.limit] = (passed + Traffic(*counts[:2]), dropped + Traffic(*counts[2:]))
        return [LimitState(name, *traffic) for name, traffic in found.items()]

    def _give(self, slot: int | None, bucket: Bucket) -> None:
        if slot is None:
            raise PlanTooLarge(
                f"too many limits: the kernel counts {layouts.LIMITS}, one for each service of a limit",
                hint="use fewer limits, or limits per total for several services",
            )
        key = layouts.U32.pack(slot)
        self._known = {held: number for held, number in self._known.items() if number != slot}
        self._counters.set_percpu(key, [bytes(layouts.LIMIT_COUNTER.size)] * possible_cpus())
        self._buckets.set(key, bytes(layouts.BUCKET.size))
        self._names.set(key, " ".join(bucket).encode().ljust(self._names.value_size, b"\0"))
        self._known[bucket] = slot


def _bucket(value: bytes) -> Bucket | None:
    limit, blank, service = value.rstrip(b"\0").decode().partition(" ")
    return Bucket(limit, service) if blank else None
