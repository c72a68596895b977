"""classes: the longest prefix around an address tells all its services, whatever came before."""

from collections.abc import Mapping
from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.classes import V4_ROOT, SourceClasses, place_of
from marchproxy.dataplane.kernel.entries import Place, Table
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.model.address import IPAddress, Prefix
from marchproxy.policy.sources import SourceIndex

type Sources = dict[str, tuple[Prefix, ...]]

PREFIXES = [
    *("0.0.0.0/0", "0.0.0.0/1", "10.0.0.0/8", "10.0.0.0/16", "10.0.0.0/24", "10.0.0.1/32", "10.0.1.0/24"),
    *("::/0", "::/1", "::/64", "::/80", "::8000:0:0/81", "::fffe:0:0/95", "2001:db8::/32"),
    *("2001:db8:1::/48", "2001:db8:1::1/128", "fe80::/10"),
]
ADDRESSES = [
    *("10.0.0.1", "10.0.0.2", "10.0.1.1", "10.9.9.9", "203.0.113.1"),
    *("2001:db8:1::1", "2001:db8:1::2", "2001:db8:2::1", "::1", "::fffe:0:1", "ff02::1"),
]
SOURCES = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.lists(st.sampled_from([ip_network(text) for text in PREFIXES]), max_size=4).map(tuple),
)


class Sorted:
    """Classes over a table, and the class of an address by longest prefix, as the trie finds it."""

    def __init__(self) -> None:
        self.table: Table[Place, int] = Table()
        self.classes = SourceClasses(self.table)

    def class_of(self, address: IPAddress) -> int:
        place, _ = place_of(ip_network(address))
        for length in range(128, -1, -1):
            found = self.table.entries.get((place >> (128 - length) << (128 - length), length))
            if found is not None:
                return found
        return layouts.CLASS_STRANGER

    def services_of(self, address: IPAddress, names: Mapping[str, object]) -> set[str]:
        found = self.class_of(address)
        return {name for name in names if found in self.classes.of_services([name])}


def sources(**prefixes: str) -> Sources:
    return {name: tuple(ip_network(text) for text in texts.split()) for name, texts in prefixes.items()}


@given(history=st.lists(SOURCES, min_size=1, max_size=5))
def test_classes_say_what_the_source_index_says(history: list[Sources]) -> None:
    made = Sorted()
    for wanted in history:
        before = {name: made.classes.of_services([name]) for name in "abcd"}
        changed = made.classes.update(wanted)
        index = SourceIndex(wanted)
        for text in ADDRESSES:
            address = ip_address(text)
            assert made.services_of(address, wanted) == index.services(address), (text, wanted)
        after = {name: made.classes.of_services([name]) for name in "abcd"}
        assert {name for name in before if before[name] != after[name]} <= changed


@given(history=st.lists(SOURCES, min_size=1, max_size=5))
def test_nothing_of_the_past_stays(history: list[Sources]) -> None:
    made = Sorted()
    for wanted in history:
        made.classes.update(wanted)
    fresh = Sorted()
    fresh.classes.update(wanted)
    assert made.table.entries.keys() == fresh.table.entries.keys()
    assert len(made.classes.outside([])) == len(fresh.classes.outside([]))


@given(wanted=SOURCES, names=st.sets(st.sampled_from(["a", "b"])))
def test_classes_outside_of_services_are_all_others(wanted: Sources, names: set[str]) -> None:
    made = Sorted()
    made.classes.update(wanted)
    for text in ADDRESSES:
        address = ip_address(text)
        is_outside = made.class_of(address) in made.classes.outside(names)
        assert is_outside == names.isdisjoint(SourceIndex(wanted).services(address))


@pytest.mark.parametrize("around", ["::/0", "::/1", "::/64", "::/80", "::8000:0:0/81", "::fffe:0:0/95"])
def test_an_ipv6_prefix_around_the_mapped_range_does_not_reach_ipv4(around: str) -> None:
    made = Sorted()
    made.classes.update(sources(six=around))
    assert made.class_of(IPv4Address("192.0.2.1")) == layouts.CLASS_STRANGER
    assert made.services_of(ip_address(around.partition("/")[0]), {"six": 0}) == {"six"}


def test_all_of_ipv4_beside_all_of_ipv6() -> None:
    made = Sorted()
    both = sources(four="0.0.0.0/0", six="::/0")
    made.classes.update(both)
    assert made.services_of(ip_address("192.0.2.1"), both) == {"four"}
    assert made.services_of(ip_address("2001:db8::1"), both) == {"six"}


def test_the_place_of_ipv4_is_there_without_any_source() -> None:
    assert Sorted().table.entries == {V4_ROOT: layouts.CLASS_STRANGER}


def test_what_stays_as_it_is_keeps_its_number() -> None:
    made = Sorted()
    made.classes.update(sources(a="10.0.0.0/24", b="10.0.1.0/24"))
    number = made.class_of(ip_address("10.0.0.1"))
    changed = made.classes.update(sources(a="10.0.0.0/24", b="10.0.2.0/24", c="10.0.3.0/24"))
    assert made.class_of(ip_address("10.0.0.1")) == number
    assert changed == {"c"}, "b has moved to another prefix, and its class moved along"


def test_a_number_is_not_given_out_twice() -> None:
    made = Sorted()
    made.classes.update(sources(a="10.0.0.1"))
    first = made.class_of(ip_address("10.0.0.1"))
    made.classes.update({})
    made.classes.update(sources(b="10.0.0.1"))
    assert made.class_of(ip_address("10.0.0.1")) > first


def test_only_what_moved_is_written() -> None:
    made = Sorted()
    many = {f"s{number}": (ip_network(f"10.0.{number}.0/24"),) for number in range(200)}
    made.classes.update(many)
    made.table.pending[0].clear()
    made.classes.update(many | sources(late="10.0.7.9"))
    assert made.table.pending[0] == {place_of(ip_network("10.0.7.9"))}


def test_too_many_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "SOURCES", 3)
    made = Sorted()
    made.classes.update(sources(a="10.0.0.1 10.0.0.2"))
    with pytest.raises(PlanTooLarge, match="too many source prefixes: the kernel's table holds 3"):
        made.classes.update(sources(a="10.0.0.1 10.0.0.2 10.0.0.3"))
