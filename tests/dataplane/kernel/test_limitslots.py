"""limitslots: numbers that last as long as what they count."""

from collections.abc import Mapping, Sequence

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.libbpf import possible_cpus
from marchproxy.dataplane.kernel.limitslots import LimitSlots
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.dataplane.records import LimitState, Traffic
from marchproxy.policy.limits import Bucket
from tests.dataplane.kernel.fakes import FakeArray

A, B, C = Bucket("a", ""), Bucket("b", "web"), Bucket("b", "office")


class Counters(FakeArray):
    """Per CPU."""

    def get_percpu(self, key: bytes) -> list[bytes]:
        cells = self.entries.get(key, bytes(self.value_size * possible_cpus()))
        return [cells[at : at + self.value_size] for at in range(0, len(cells), self.value_size)]

    def set_percpu(self, key: bytes, values: Sequence[bytes], flags: int = 0) -> None:
        assert len(values) == possible_cpus()
        self.set(key, b"".join(values))


@pytest.fixture
def maps() -> Mapping[str, Map]:
    return {
        "limit_names": FakeArray("limit_names", value_size=256),
        "limit_counters": Counters("limit_counters", value_size=layouts.LIMIT_COUNTER.size),
        "limit_buckets": FakeArray("limit_buckets", value_size=layouts.BUCKET.size),
    }


def count(maps: Mapping[str, Map], slot: int, *numbers: int) -> None:
    """Passed packets and bytes, dropped packets and bytes, on every CPU."""
    cell = layouts.LIMIT_COUNTER.struct.pack(*numbers)
    maps["limit_counters"].set_percpu(layouts.U32.pack(slot), [cell] * possible_cpus())


def test_slots_are_kept_while_they_are_wanted_and_after_a_restart(maps: Mapping[str, Map]) -> None:
    slots = LimitSlots(maps)
    first = dict(slots.settle([A, B]))
    assert sorted(first.values()) == [0, 1]
    again = slots.settle([C, B, A])
    assert {bucket: again[bucket] for bucket in (A, B)} == first
    assert LimitSlots(maps).settle([A, B, C]) == again


def test_counts_of_a_limit_are_those_of_all_its_services(maps: Mapping[str, Map]) -> None:
    slots = LimitSlots(maps)
    numbers = slots.settle([A, B, C])
    count(maps, numbers[A], 1, 2, 3, 4)
    count(maps, numbers[B], 5, 6, 7, 8)
    count(maps, numbers[C], 10, 20, 30, 40)
    cpus = possible_cpus()
    assert slots.states() == [
        LimitState("a", Traffic(1 * cpus, 2 * cpus), Traffic(3 * cpus, 4 * cpus)),
        LimitState("b", Traffic(15 * cpus, 26 * cpus), Traffic(37 * cpus, 48 * cpus)),
    ]
    assert LimitSlots(maps).states() == [], "of limits of the plan alone"


def test_a_slot_that_is_given_to_another_starts_at_zero(
    maps: Mapping[str, Map], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "LIMITS", 2)
    slots = LimitSlots(maps)
    number = slots.settle([A])[A]
    count(maps, number, 1, 2, 3, 4)
    maps["limit_buckets"].set(layouts.U32.pack(number), b"\1" * layouts.BUCKET.size)
    assert slots.settle([B])[B] != number, "not while packets may still be counted there"
    assert slots.settle([B, C])[C] == number
    assert slots.states() == [LimitState("b", Traffic(), Traffic())]
    assert maps["limit_buckets"].get(layouts.U32.pack(number)) == bytes(layouts.BUCKET.size)


def test_a_limit_that_comes_back_goes_on_counting(maps: Mapping[str, Map]) -> None:
    slots = LimitSlots(maps)
    number = slots.settle([A])[A]
    slots.settle([])
    slots.settle([B])
    assert slots.settle([A])[A] == number


def test_more_than_there_are_do_not_fit(maps: Mapping[str, Map]) -> None:
    slots = LimitSlots(maps)
    slots.settle(Bucket("x", str(number)) for number in range(layouts.LIMITS))
    with pytest.raises(PlanTooLarge, match="counts 1024"):
        slots.settle(Bucket("x", str(number)) for number in range(layouts.LIMITS + 1))
