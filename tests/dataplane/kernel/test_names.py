"""names: numbers of mappings outlive the daemon, and are never given to another."""

import pytest

from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from tests.dataplane.kernel.fakes import FakeMap


@pytest.fixture
def held() -> FakeMap:
    return FakeMap("mapping_names", value_size=128, max_entries=3)


def test_numbers_start_at_one_and_stay(held: FakeMap) -> None:
    names = MappingNames(held)
    assert [names.number(name) for name in ("a", "b", "a")] == [1, 2, 1]
    assert [names.name(number) for number in (0, 1, 2, 3)] == ["", "a", "b", ""]


def test_a_successor_knows_them(held: FakeMap) -> None:
    MappingNames(held).number("a")
    successor = MappingNames(held)
    assert successor.name(1) == "a"
    assert successor.number("b") == 2
    assert successor.number("a") == 1


def test_the_longest_name_there_can_be(held: FakeMap) -> None:
    """Cluster and mapping have 63 characters at most."""
    longest = f"{'c' * 63}/{'m' * 63}"
    MappingNames(held).number(longest)
    assert MappingNames(held).name(1) == longest


def test_when_numbers_are_used_up_it_says_what_to_do(held: FakeMap) -> None:
    names = MappingNames(held)
    for name in "abc":
        names.number(name)
    with pytest.raises(PlanTooLarge, match="more than 3 mappings") as refused:
        names.number("d")
    assert "marchproxy detach" in refused.value.hint
    assert names.number("a") == 1
