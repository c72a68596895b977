"""Who is denied most: bounded, and right about those who matter."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.flowtotals import Grouping, shown
from marchproxy.dataplane.records import Decision
from marchproxy.dataplane.refused import ENDS, Refused
from tests.dataplane import facts


def refusal(source: str, count: int = 1) -> Decision:
    made = facts.denied(source).decision
    return replace(made, count=count, source_service="lan", destination_service="web")


@pytest.mark.parametrize(
    ("by", "wanted"),
    [
        (Grouping.SOURCE, {"10.0.0.7": 5, "10.0.0.9": 1}),
        (Grouping.DESTINATION, {str(refusal("10.0.0.7").destination): 6}),
        (Grouping.SERVICE, {"lan": 6, "web": 6}),
    ],
)
def test_packets_are_added_up_by_each_end(by: Grouping, wanted: dict[str, int]) -> None:
    held = Refused()
    for decision in (refusal("10.0.0.7", 4), refusal("10.0.0.9"), refusal("10.0.0.7")):
        held.take(decision)
    assert {shown(key): packets for key, packets in held.packets(by).items()} == wanted


def test_a_flood_from_invented_addresses_fills_nothing_and_hides_nobody() -> None:
    held = Refused(most=100)
    for number in range(5_000):
        held.take(refusal(f"172.16.{number // 250}.{number % 250}"))
        if number % 10 == 0:
            held.take(refusal("10.0.0.7", 2))
        assert all(len(held.packets(by)) <= 100 for by in ENDS)
    sources = held.packets(Grouping.SOURCE)
    assert sources[ip_address("10.0.0.7").packed] == 1_000
    assert max(sources.values()) == 1_000
