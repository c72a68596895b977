"""Flows added up."""

import pytest

from marchproxy.dataplane.flowtotals import FlowTotals, Grouping, Sum, keys, shown, sides
from tests.dataplane import facts

ONE = Sum(1, 6, 5300)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        (Grouping.SERVICE, ["clients", "web"]),
        (Grouping.SOURCE, ["10.0.0.1"]),
        (Grouping.DESTINATION, ["10.0.0.9"]),
        (Grouping.MAPPING, ["m"]),
    ],
)
def test_a_flow_counts_under_its_keys(by: Grouping, names: list[str]) -> None:
    flow = facts.flow(facts.decision(source_service="clients", destination_service="web"))
    assert list(map(shown, keys(flow.decision, by))) == names
    totals = FlowTotals.of([flow, flow], by)
    assert {shown(key): each for key, each in totals.items()} == dict.fromkeys(names, Sum(2, 12, 10600))


def test_a_service_counts_once_and_strangers_have_none() -> None:
    assert sides("a", "b") == ("a", "b")
    assert sides("a", "a") == sides("a", "") == sides("", "a") == ("a",)
    assert sides("", "") == ("",)


def test_totals_of_two_parts_are_added() -> None:
    totals = FlowTotals.of([facts.flow()], Grouping.MAPPING)
    totals.add(FlowTotals.of([facts.flow(), facts.flow(facts.decision(mapping="n"))], Grouping.MAPPING))
    assert totals == {"m": Sum(2, 12, 10600), "n": ONE}


def test_sums_of_groups_count_for_every_key() -> None:
    groups = {("a", "b"): Sum(1, 2, 3), ("a", ""): Sum(4, 5, 6)}
    assert FlowTotals.of_groups(groups, lambda names: sides(*names)) == {"a": Sum(5, 7, 9), "b": Sum(1, 2, 3)}
