"""Rules that come and go: the order is that of sorting them all."""

from hypothesis import given
from hypothesis import strategies as st

from marchproxy.model.entities import Action
from marchproxy.model.reason import Reason
from marchproxy.policy.order import FEW, exchange, merge
from marchproxy.policy.plan import ANYONE, Match, TransitRule, precedence


def rule(priority: int, mapping: str, action: Action, excluded: tuple[str, ...]) -> TransitRule:
    """A rule of which only the order matters."""
    return TransitRule(
        mapping, priority, (ANYONE,), excluded, (ANYONE,), (), (Match(6),), Reason.FORWARDED, action=action
    )


RULES = st.lists(
    st.builds(
        rule,
        st.integers(0, 3),
        st.sampled_from("abcdefgh"),
        st.sampled_from(Action),
        st.sampled_from([(), ("s",)]),
    ),
    max_size=12,
    unique_by=precedence,
)


@given(RULES, st.data())
def test_exchanging_a_few_is_sorting_all(rules: list[TransitRule], data: st.DataObject) -> None:
    lost = data.draw(st.lists(st.sampled_from(rules), unique_by=id)) if rules else []
    gained = data.draw(RULES.map(lambda some: [each for each in some if each not in rules]))
    held = tuple(sorted(rules, key=precedence))
    expected = [each for each in held if not any(each is other for other in lost)] + gained
    assert exchange(held, lost, gained) == tuple(sorted(expected, key=precedence))


def test_many_are_exchanged_as_few_are() -> None:
    held = tuple(rule(number, "a", Action.ALLOW, ()) for number in range(3 * FEW))
    lost, staying = held[1::3] + held[2::3], held[::3]
    more = [rule(number, "b", Action.ALLOW, ()) for number in range(2)]
    assert exchange(held, lost, more) == (staying[0], *more, *staying[1:])
    assert exchange(held, lost[:FEW], []) == tuple(each for each in held if each not in lost[:FEW])


def test_nothing_to_exchange_is_the_same_tuple() -> None:
    held = (rule(1, "a", Action.ALLOW, ()),)
    assert exchange(held, [], []) is held


def test_of_equal_precedence_the_order_of_arrival_holds() -> None:
    first, second = rule(1, "a", Action.ALLOW, ()), rule(1, "a", Action.ALLOW, ())
    last = rule(2, "b", Action.ALLOW, ())
    found = exchange((last,), [], [first, second])
    assert found[0] is first
    assert found[1] is second
    assert merge([], [last]) == (last,)
