"""memberships: the longest prefix around an address tells all its services, whatever came before."""

from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.entries import Place
from marchproxy.dataplane.kernel.memberships import NOBODY, V4_ROOT, Membership, Memberships, place_of
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


class Trie:
    """What the moves so far come to, looked up as the kernel does: by the longest prefix."""

    def __init__(self) -> None:
        self.memberships = Memberships()
        self.found: dict[Place, Membership] = {}
        self.moved: set[Place] = set()
        """By the last update."""
        self.update({})

    def update(self, sources: Sources) -> None:
        self.moved.clear()
        for place, before, after in self.memberships.update(sources):
            assert self.found.get(place) == before
            self.moved.add(place)
            if after is None:
                del self.found[place]
            else:
                self.found[place] = after

    def services_of(self, address: IPAddress) -> Membership:
        place, _ = place_of(ip_network(address))
        around = [((place >> (128 - length)) << (128 - length), length) for length in range(128, -1, -1)]
        return next((self.found[each] for each in around if each in self.found), NOBODY)


def sources(**prefixes: str) -> Sources:
    return {name: tuple(ip_network(text) for text in texts.split()) for name, texts in prefixes.items()}


@given(history=st.lists(SOURCES, min_size=1, max_size=5))
def test_memberships_are_those_of_the_source_index(history: list[Sources]) -> None:
    made = Trie()
    for wanted in history:
        made.update(wanted)
        index = SourceIndex(wanted)
        for text in ADDRESSES:
            assert made.services_of(ip_address(text)) == index.services(ip_address(text)), (text, wanted)


@given(history=st.lists(SOURCES, min_size=1, max_size=5))
def test_nothing_of_the_past_stays(history: list[Sources]) -> None:
    made, fresh = Trie(), Trie()
    for wanted in history:
        made.update(wanted)
    fresh.update(wanted)
    assert made.found == fresh.found


@pytest.mark.parametrize("around", ["::/0", "::/1", "::/64", "::/80", "::8000:0:0/81", "::fffe:0:0/95"])
def test_an_ipv6_prefix_around_the_mapped_range_does_not_reach_ipv4(around: str) -> None:
    made = Trie()
    made.update(sources(six=around))
    assert made.services_of(IPv4Address("192.0.2.1")) == NOBODY
    assert made.services_of(ip_address(around.partition("/")[0])) == {"six"}


def test_all_of_ipv4_beside_all_of_ipv6() -> None:
    made = Trie()
    made.update(sources(four="0.0.0.0/0", six="::/0"))
    assert made.services_of(ip_address("192.0.2.1")) == {"four"}
    assert made.services_of(ip_address("2001:db8::1")) == {"six"}


def test_the_place_of_ipv4_is_there_without_any_source() -> None:
    assert Trie().found == {V4_ROOT: NOBODY}


def test_a_prefix_that_is_listed_twice() -> None:
    made = Trie()
    made.update(sources(a="10.0.0.1 10.0.0.1"))
    made.update(sources(a="10.0.0.1"))
    assert made.services_of(ip_address("10.0.0.1")) == {"a"}
    made.update({})
    assert made.found == {V4_ROOT: NOBODY}


def test_only_what_changes_moves() -> None:
    made = Trie()
    many: Sources = {f"s{number}": (ip_network(f"10.0.{number}.0/24"),) for number in range(200)}
    made.update(many)
    made.update(many | sources(late="10.0.7.9"))
    assert made.moved == {place_of(ip_network("10.0.7.9"))}
    made.update(many | sources(wide="10.0.0.0/22"))
    assert len(made.moved) == 6, "the wide one, the four inside of it, and the late one that is gone"


def test_too_many_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "PREFIXES", 3)
    made = Memberships()
    made.update(sources(a="10.0.0.1 10.0.0.2"))
    with pytest.raises(PlanTooLarge, match="too many prefixes of services: the kernel's table holds 3"):
        made.update(sources(a="10.0.0.1 10.0.0.2 10.0.0.3"))
