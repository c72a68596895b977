"""addressclasses: page and trie together answer with the longest prefix, whatever came before."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.kernel import addressclasses, layouts
from marchproxy.dataplane.kernel.addressclasses import AddressClasses, page_runs
from marchproxy.dataplane.kernel.entries import Place, Tables
from marchproxy.dataplane.kernel.memberships import place_of
from tests.dataplane.kernel import interpreter
from tests.dataplane.kernel.interpreter import narrow_class

_BASE, _ = place_of(ip_network("10.0.0.0/24"))
_PLACES = st.builds(
    lambda length, last: (_BASE | (last >> (128 - length) << (128 - length)), length),
    st.integers(120, 128),
    st.integers(0, 255),
) | st.sampled_from([place_of(ip_network(text)) for text in ("10.0.0.0/8", "10.0.0.0/23", "10.0.1.0/25")])
_CHANGES = st.lists(st.tuples(_PLACES, st.none() | st.integers(2, 9)), max_size=40)


class Made:
    """Classes, and what the programs would find."""

    def __init__(self) -> None:
        self.tables = Tables()
        self.classes = AddressClasses(self.tables)
        self.wanted: dict[Place, int] = {}

    def set(self, text: str, number: int) -> None:
        self.change(place_of(ip_network(text)), number)

    def change(self, place: Place, number: int | None) -> None:
        """None: takes the prefix out, if it is there."""
        if number is not None:
            self.classes[place] = self.wanted[place] = number
        elif place in self.wanted:
            del self.classes[place]
            del self.wanted[place]

    def found(self, address: int) -> int | None:
        number = narrow_class(
            address, self.tables.class_lines.entries.get, self.tables.class_pages.entries.get
        )
        return (
            _longest(self.tables.address_classes.entries, address)
            if number == layouts.CLASS_ELSEWHERE
            else number
        )


def _longest(entries: dict[Place, int], address: int) -> int | None:
    around = [(address >> (128 - length) << (128 - length), length) for length in range(128, -1, -1)]
    return next((entries[place] for place in around if place in entries), None)


@given(_CHANGES, _CHANGES)
def test_the_longest_prefix_decides(
    first: list[tuple[Place, int | None]], then: list[tuple[Place, int | None]]
) -> None:
    made = Made()
    for changes in (first, then):
        for place, number in changes:
            made.change(place, number)
        made.classes.settle()
        for address in range(_BASE - 2, _BASE + 0x102):
            assert made.found(address) == _longest(made.wanted, address)


def test_a_narrow_prefix_is_in_its_page_and_a_wide_one_in_the_trie() -> None:
    made = Made()
    made.set("10.0.0.0/23", 2)
    made.set("10.0.0.0/24", 3)
    made.set("2001:db8::1/128", 4)
    made.classes.settle()
    assert len(made.tables.class_lines.entries) == 2
    assert not made.tables.class_pages.entries
    assert list(made.tables.address_classes.entries) == [place_of(ip_network("10.0.0.0/23"))]


def test_a_page_that_is_too_diverse_is_in_the_trie_until_it_is_not() -> None:
    made = Made()
    for last in range(layouts.PAGE_RUNS):
        made.set(f"10.0.0.{last * 2}/32", 2 + last)
    made.classes.settle()
    assert not made.tables.class_pages.entries
    assert not made.tables.class_lines.entries
    assert len(made.tables.address_classes.entries) == layouts.PAGE_RUNS
    for last in range(layouts.PAGE_RUNS - 5):
        made.change(place_of(ip_network(f"10.0.0.{last * 2}/32")), None)
    made.classes.settle()
    assert len(made.tables.class_pages.entries) == 1
    assert not made.tables.address_classes.entries
    for last in range(layouts.PAGE_RUNS - 5, layouts.PAGE_RUNS - 4):
        made.change(place_of(ip_network(f"10.0.0.{last * 2}/32")), None)
    made.classes.settle()
    assert not made.tables.class_pages.entries
    assert len(made.tables.class_lines.entries) == 1


def test_pages_of_one_line_are_all_found_and_inherit_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addressclasses, "slot_of", lambda page: 7)
    monkeypatch.setattr(interpreter, "slot_of", lambda page: 7)
    made = Made()
    for third in range(3):
        made.set(f"10.0.{third}.7/32", 2 + third)
    made.classes.settle()
    assert (len(made.tables.class_lines.entries), len(made.tables.class_pages.entries)) == (1, 2)
    assert [made.found(_BASE + third * 256 + 7) for third in range(4)] == [2, 3, 4, None]
    made.change(place_of(ip_network("10.0.0.7/32")), None)
    made.classes.settle()
    assert (len(made.tables.class_lines.entries), len(made.tables.class_pages.entries)) == (1, 1)
    assert [made.found(_BASE + third * 256 + 7) for third in range(4)] == [None, 3, 4, None]


def test_pages_that_find_no_room_are_in_the_trie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "PAGES", 2)
    made = Made()
    for third in range(3):
        made.set(f"10.0.{third}.7/32", 2 + third)
    made.classes.settle()
    assert (len(made.tables.class_lines.entries), len(made.tables.address_classes.entries)) == (2, 1)
    assert [made.found(_BASE + third * 256 + 7) for third in range(3)] == [2, 3, 4]


def test_nothing_is_left_of_a_page_without_prefixes() -> None:
    made = Made()
    made.set("10.0.0.7/32", 2)
    made.classes.settle()
    made.change(place_of(ip_network("10.0.0.7/32")), None)
    made.classes.settle()
    assert not made.tables.class_lines.entries
    assert not made.tables.class_pages.entries
    assert not made.tables.address_classes.entries


@pytest.mark.parametrize(
    "text", ["10.0.0.0/24", "10.0.0.0/25", "10.0.0.128/25", "10.0.0.0/32", "10.0.0.255/32", "10.0.0.77/32"]
)
def test_one_prefix_is_packed_as_it_would_be_among_others(text: str) -> None:
    place = place_of(ip_network(text))
    wide = (_BASE, 120)
    alone, among = page_runs({place: 7}), page_runs({wide: layouts.CLASS_ELSEWHERE, place: 7})
    assert alone == among
