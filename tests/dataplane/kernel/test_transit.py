"""transit: ranks follow the plan's order, numbers stay, and rules of different shapes share no word."""

from collections.abc import Callable
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.kernel import layouts, transit
from marchproxy.dataplane.kernel.audiences import Audiences
from marchproxy.dataplane.kernel.classes import WORD
from marchproxy.dataplane.kernel.entries import Tables
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.dataplane.kernel.transit import TransitTables
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import ANYONE, Match, TransitRule

SERVICES = {name: (ip_network(f"10.0.{number}.0/24"),) for number, name in enumerate("abc")}
NAMES = {"": 0} | {f"m{number}": number + 1 for number in range(40)}


def a_rule(name: str, source: str = "a", destination: str = "b", *, audit: bool = False) -> TransitRule:
    reason = Reason.NO_MAPPING if audit else Reason.FORWARDED
    return TransitRule(name, 100, (source,), (), (destination,), (), (Match(6),), reason, audit=audit)


class Made:
    """Transit tables over tables of their own."""

    def __init__(self, number_of: Callable[[str], int] = NAMES.__getitem__) -> None:
        self.tables = Tables()
        self.audiences = Audiences(self.tables)
        self.transit = TransitTables(self.tables, self.audiences, number_of)

    def build(self, *rules: TransitRule) -> None:
        self.transit.build(rules)
        self.audiences.settle(SERVICES)

    def entries(self) -> dict[int, tuple[int, int, int, int]]:
        """Mapping, rank, reason and flags by number."""
        rules = self.tables.transit_rules.entries
        return {number: layouts.TRANSIT_RULE.struct.unpack(packed) for number, packed in rules.items()}

    def in_order(self) -> list[int]:
        """Mappings by rank."""
        return [mapping for mapping, *_ in sorted(self.entries().values(), key=lambda entry: entry[1])]

    def number(self, name: str) -> int:
        (number,) = (number for number, entry in self.entries().items() if entry[0] == NAMES[name])
        return number


def test_a_rule_says_what_it_does() -> None:
    made = Made()
    made.build(a_rule("m0"), a_rule("", audit=True))
    first, last = sorted(made.entries().values(), key=lambda entry: entry[1])
    assert (first[0], first[2:]) == (NAMES["m0"], (Reason.FORWARDED, 0))
    assert (last[0], last[2:]) == (0, (Reason.NO_MAPPING, layouts.RULE_AUDIT))


@given(
    st.lists(
        st.permutations(range(12)).flatmap(lambda every: st.integers(0, 12).map(lambda n: every[:n])),
        max_size=6,
    )
)
def test_ranks_follow_the_order_of_every_plan(plans: list[list[int]]) -> None:
    """In a plan what was there before keeps its order; here new objects stand for what moves."""
    made = Made()
    for plan in plans:
        made.build(*(a_rule(f"m{number}") for number in plan))
        assert made.in_order() == [NAMES[f"m{number}"] for number in plan]


def test_what_comes_between_moves_nobody() -> None:
    made = Made()
    first, last = a_rule("m0"), a_rule("m9")
    made.build(first, last)
    made.tables.transit_rules.pending[0].clear()
    before = {name: made.number(name) for name in ("m0", "m9")}
    made.build(first, a_rule("m5"), last)
    assert made.in_order() == [NAMES["m0"], NAMES["m5"], NAMES["m9"]]
    assert {name: made.number(name) for name in before} == before
    assert made.tables.transit_rules.pending[0] == {made.number("m5")}


def test_where_no_gap_is_left_all_get_new_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transit, "GAP", 2)
    made = Made()
    rules = [a_rule("m0"), a_rule("m20")]
    made.build(*rules)
    for number in range(19, 0, -1):
        rules.insert(1, a_rule(f"m{number}"))
        made.build(*rules)
        assert made.in_order() == [NAMES[rule.mapping] for rule in rules]


def test_rules_of_different_shapes_share_no_word() -> None:
    made = Made()
    made.build(
        a_rule("m0"),
        a_rule("m1", ANYONE),
        a_rule("m2", "a", ANYONE),
        a_rule("m3", ANYONE, ANYONE),
        a_rule("m4", "c"),
    )
    words = {name: made.number(name) // WORD for name in ("m0", "m1", "m2", "m3", "m4")}
    assert words["m0"] == words["m4"]
    assert len(set(words.values())) == 4


def test_nothing_stays_of_rules_that_are_gone() -> None:
    made = Made()
    made.build(a_rule("m0"), a_rule("m1", ANYONE))
    made.build()
    tables = made.tables
    assert not any(table.entries for table in (tables.transit_rules, tables.transit_bits))
    assert not any(map(any, tables.transit_digests.entries.values()))
    assert not any(tables.port_classes)


def test_too_many_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "RULES", WORD)
    with pytest.raises(PlanTooLarge, match="too many words of transit rules"):
        Made().build(a_rule("m0"), a_rule("m1", ANYONE))
