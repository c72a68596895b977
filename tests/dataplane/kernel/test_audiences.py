"""audiences: rules match their sources, with no more classes than rules tell apart."""

from ipaddress import ip_address, ip_network

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.audiences import Audiences
from marchproxy.dataplane.kernel.classes import WORD, Dimension
from marchproxy.dataplane.kernel.entries import Tables, tagged
from marchproxy.dataplane.kernel.memberships import place_of
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import ANYONE, Rule
from tests.dataplane.kernel.interpreter import narrow_class

EVERYONE = (ANYONE,)


def for_sources(*sources: str, excluded: tuple[str, ...] = ()) -> Rule:
    return Rule("m", 100, sources, excluded, None, Reason.DENY_MAPPING)


class Made:
    """Audiences, and who matches what by the tables they keep."""

    def __init__(self, **sources: str) -> None:
        self.tables = Tables()
        self.audiences = Audiences(self.tables)
        self.sources: dict[str, str] = sources
        self.settle()

    def settle(self, **sources: str) -> None:
        """Take over rules, and more sources."""
        self.sources |= sources
        prefixes = {name: tuple(map(ip_network, text.split())) for name, text in self.sources.items()}
        self.audiences.settle(prefixes)

    def join(self, *rules: Rule, first: int = 0) -> None:
        for number, rule in enumerate(rules, first):
            self.audiences.join(Dimension.LISTENER, number, rule.sources, rule.excluded)
        self.settle()

    def class_of(self, text: str) -> int:
        place, _ = place_of(ip_network(ip_address(text)))
        around = [((place >> (128 - length)) << (128 - length), length) for length in range(128, -1, -1)]
        number = narrow_class(place, self.tables.class_lines.entries.get, self.tables.class_pages.entries.get)
        if number != layouts.CLASS_ELSEWHERE:
            return number
        entries = self.tables.address_classes.entries
        return next((entries[each] for each in around if each in entries), layouts.CLASS_STRANGER)

    def matching(self, text: str) -> set[int]:
        """The rules that an address matches."""
        classes = (self.class_of(text), layouts.CLASS_ANYONE)
        return {
            word * WORD + bit
            for (number, word), mask in self.tables.bits.entries.items()
            if number in classes
            for bit in range(WORD)
            if mask >> bit & 1
        }

    def forget_pending(self) -> None:
        for table in (
            self.tables.address_classes,
            self.tables.class_lines,
            self.tables.class_pages,
            self.tables.bits,
        ):
            table.pending[0].clear()


def test_a_rule_for_a_service() -> None:
    made = Made(a="10.0.0.0/8", b="10.1.0.0/16")
    made.join(for_sources("a"), for_sources("b"))
    assert made.matching("10.0.0.1") == {0}
    assert made.matching("10.1.0.1") == {0, 1}
    assert made.matching("192.0.2.1") == set()


def test_a_rule_for_everyone_is_one_bit() -> None:
    made = Made(a="10.0.0.0/8")
    made.join(for_sources(ANYONE))
    assert made.tables.bits.entries == {(layouts.CLASS_ANYONE, 0): 1}
    made.audiences.leave(Dimension.LISTENER, 0)
    made.settle()
    made.join(for_sources(ANYONE), first=70)
    assert made.matching("192.0.2.1") == {70}


def test_a_rule_for_everyone_but_some() -> None:
    made = Made(a="10.0.0.0/8", theirs="192.0.2.0/24")
    made.join(for_sources(ANYONE, excluded=("a",)))
    assert made.matching("10.0.0.1") == set()
    assert made.matching("192.0.2.1") == made.matching("203.0.113.1") == made.matching("2001:db8::1") == {0}


def test_services_less_others() -> None:
    made = Made(a="10.0.0.0/8", b="10.1.0.0/16")
    made.join(for_sources("a", excluded=("b",)))
    assert (made.matching("10.0.0.1"), made.matching("10.1.0.1")) == ({0}, set())


def test_a_collection_is_one_class_and_one_bit() -> None:
    made = Made(**{f"s{number}": f"10.0.{number}.0/24" for number in range(200)})
    names = tuple(made.sources)
    made.join(*(for_sources(*names) for _ in range(WORD)))
    assert len(made.tables.bits.entries) == 1
    assert made.matching("10.0.7.1") == set(range(WORD))
    made.join(for_sources("s7"), first=WORD)
    assert made.matching("10.0.7.1") == set(range(WORD + 1))
    assert made.matching("10.0.8.1") == set(range(WORD))
    assert len(made.tables.bits.entries) == 3, "s7 is a class of its own now"
    made.audiences.leave(Dimension.LISTENER, WORD)
    made.settle()
    assert made.class_of("10.0.7.1") == made.class_of("10.0.8.1")
    assert len(made.tables.bits.entries) == 1


def test_rules_follow_their_services() -> None:
    made = Made(a="10.0.0.0/8")
    made.join(for_sources("a"), for_sources(ANYONE, excluded=("a",)))
    made.settle(a="10.0.0.0/8 192.0.2.0/24", b="192.0.2.9")
    assert made.matching("192.0.2.1") == made.matching("192.0.2.9") == {0}
    made.settle(a="192.0.2.0/28")
    assert (made.matching("192.0.2.9"), made.matching("10.0.0.1")) == ({0}, {1})


def test_who_comes_before_its_services_do() -> None:
    made = Made()
    made.join(for_sources("a"))
    assert made.matching("10.0.0.1") == set()
    made.settle(a="10.0.0.0/8")
    assert made.matching("10.0.0.1") == {0}


def test_who_leaves_takes_its_bits_and_no_others() -> None:
    made = Made(a="10.0.0.0/8")
    made.join(for_sources("a"), for_sources("a"))
    made.audiences.leave(Dimension.LISTENER, 0)
    made.settle()
    assert made.matching("10.0.0.1") == {1}
    made.audiences.leave(Dimension.LISTENER, 1)
    made.settle()
    assert not made.tables.bits.entries
    made.settle(a="10.9.0.0/16")
    assert not made.tables.bits.entries, "a rule that has left does not come back"


def test_a_rule_that_is_replaced_moves_nobody() -> None:
    made = Made(a="10.0.0.0/8", b="192.0.2.0/24")
    made.join(for_sources("a"), for_sources(ANYONE, excluded=("a",)))
    made.forget_pending()
    for number, rule in enumerate((for_sources("a"), for_sources(ANYONE, excluded=("a",)))):
        made.audiences.leave(Dimension.LISTENER, number)
        made.audiences.join(Dimension.LISTENER, number, rule.sources, rule.excluded)
    made.settle()
    assert not made.tables.address_classes.pending[0]
    assert (made.matching("10.0.0.1"), made.matching("192.0.2.1")) == ({0}, {1})


def test_a_service_that_moves_keeps_its_class() -> None:
    made = Made(a="10.0.0.0/8", b="192.0.2.0/24")
    made.join(for_sources("a"), for_sources("b"))
    number = made.class_of("10.0.0.1")
    made.forget_pending()
    made.settle(a="10.0.0.0/16")
    assert made.class_of("10.0.0.1") == number
    assert not made.tables.bits.pending[0]
    assert len(made.tables.address_classes.pending[0]) == 2


def test_a_number_that_nobody_has_is_given_out_again() -> None:
    made = Made(a="10.0.0.0/8")
    made.join(for_sources("a"))
    first = made.class_of("10.0.0.1")
    made.audiences.leave(Dimension.LISTENER, 0)
    made.settle()
    made.settle(a="192.0.2.0/24")
    made.join(for_sources("a"), first=1)
    assert made.class_of("192.0.2.1") == first
    assert made.matching("192.0.2.1") == {1}


def test_sources_and_destinations_of_transit_rules_have_bits_of_their_own() -> None:
    made = Made(a="10.0.0.0/8", b="192.0.2.0/24")
    for dimension, number, name in ((Dimension.SOURCE, 3, "a"), (Dimension.DESTINATION, 3, "b")):
        made.audiences.join(dimension, number, (name,), ())
    made.join(for_sources("a"), first=3)
    bits = made.tables.transit_bits.entries
    source = tagged(made.class_of("10.0.0.1"), Dimension.SOURCE)
    destination = tagged(made.class_of("192.0.2.1"), Dimension.DESTINATION)
    assert bits == {(source, 0): 1 << 3, (destination, 0): 1 << 3}
    assert made.matching("10.0.0.1") == {3}
    made.audiences.leave(Dimension.SOURCE, 3)
    made.settle()
    assert bits == {(destination, 0): 1 << 3}
    assert made.matching("10.0.0.1") == {3}
