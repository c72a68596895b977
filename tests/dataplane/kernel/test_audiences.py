"""audiences: rules match their sources' classes, also when those change under them."""

from ipaddress import ip_network

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.audiences import WORD, Audiences
from marchproxy.dataplane.kernel.classes import SourceClasses
from marchproxy.dataplane.kernel.entries import Tables
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import ANYONE, Rule

A, B = ("a",), ("b",)
EVERYONE = (ANYONE,)


def for_sources(sources: tuple[str, ...], excluded: tuple[str, ...] = ()) -> Rule:
    return Rule("default/m", 100, sources, excluded, None, Reason.DENY_MAPPING)


class Made:
    """Audiences over sources that can be replaced."""

    def __init__(self, **sources: str) -> None:
        self.tables = Tables()
        self.classes = SourceClasses(self.tables.sources)
        self.audiences = Audiences(self.classes, self.tables.bits)
        self.replace(**sources)

    def replace(self, **sources: str) -> None:
        prefixes = {name: (ip_network(text),) for name, text in sources.items()}
        self.audiences.refresh(self.classes.update(prefixes))

    def matching(self, number: int) -> set[int]:
        """Classes that rule `number` matches, as the bits say."""
        word, bit = divmod(number, WORD)
        return {
            place[0]
            for place, mask in self.tables.bits.entries.items()
            if place[1] == word and mask >> bit & 1
        }

    def of(self, *names: str) -> frozenset[int]:
        return self.classes.of_services(names)


def test_a_rule_for_a_service_matches_its_classes() -> None:
    made = Made(a="10.0.0.0/8", b="10.1.0.0/16")
    made.audiences.join(5, for_sources(A))
    made.audiences.join(WORD, for_sources(B))
    assert made.matching(5) == made.of("a")
    assert made.matching(WORD) == made.of("b")
    assert len(made.of("a")) == 2, "on its own, and inside of it b's"


def test_a_rule_for_everyone_is_one_bit() -> None:
    made = Made(a="10.0.0.0/8")
    made.audiences.join(0, for_sources(EVERYONE))
    assert made.tables.bits.entries == {(layouts.CLASS_ANYONE, 0): 1}


def test_a_rule_for_outsiders_matches_strangers_and_services_of_others() -> None:
    made = Made(a="10.0.0.0/8", theirs="10.1.0.0/16", far="192.0.2.0/24")
    made.audiences.join(1, for_sources(EVERYONE, A))
    assert made.matching(1) == {layouts.CLASS_STRANGER} | made.of("far")


def test_services_less_others() -> None:
    made = Made(a="10.0.0.0/8", b="10.1.0.0/16")
    made.audiences.join(1, for_sources(A, B))
    assert made.matching(1) == made.of("a") - made.of("b")


def test_rules_follow_their_services() -> None:
    made = Made(a="10.0.0.0/8")
    made.audiences.join(1, for_sources(A))
    made.audiences.join(2, for_sources(EVERYONE, A))
    made.replace(a="10.0.0.0/8", b="10.1.0.0/16", c="192.0.2.0/24")
    assert made.matching(1) == made.of("a")
    assert made.matching(2) == {layouts.CLASS_STRANGER} | made.of("c")
    made.replace(b="10.1.0.0/16")
    assert made.matching(1) == set()
    assert made.matching(2) == {layouts.CLASS_STRANGER} | made.of("b")


def test_only_rules_that_are_concerned_are_written() -> None:
    made = Made(a="10.0.0.0/8", b="192.0.2.0/24")
    made.audiences.join(1, for_sources(A))
    made.audiences.join(WORD, for_sources(B))
    made.tables.bits.pending[0].clear()
    made.replace(a="10.0.0.0/8", b="192.0.2.0/24", c="192.0.2.1")
    assert {word for _, word in made.tables.bits.pending[0]} == {1}


def test_who_leaves_takes_its_bits_and_no_others() -> None:
    made = Made(a="10.0.0.0/8")
    first, second = for_sources(A), for_sources(A)
    made.audiences.join(1, first)
    made.audiences.join(2, second)
    made.audiences.leave(1, first)
    assert made.matching(2) == made.of("a")
    assert not made.matching(1)
    made.audiences.leave(2, second)
    assert not made.tables.bits.entries
    made.replace(a="10.9.0.0/16")
    assert not made.tables.bits.entries, "a rule that has left does not come back"
