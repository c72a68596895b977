"""Names that are needed, against counting them all again."""

from hypothesis import given
from hypothesis import strategies as st

from marchproxy.policy.needs import Needs

LISTS = [("a",), ("a", "b"), ("b", "c"), ("c",), (), ("a", "b", "c")]
CHOICES = st.lists(st.integers(0, len(LISTS) - 1), max_size=8)


@given(CHOICES, st.lists(st.tuples(CHOICES, st.randoms(use_true_random=False)), max_size=4))
def test_exchanging_is_counting_anew(first: list[int], steps: list[tuple[list[int], object]]) -> None:
    held = list(first)
    needs = Needs().exchange([], [LISTS[each] for each in held])
    for gained, dice in steps:
        dice.shuffle(held)  # type: ignore[attr-defined]
        lost, held = held[: len(held) // 2], held[len(held) // 2 :] + gained
        needs = needs.exchange([LISTS[each] for each in lost], [LISTS[each] for each in gained])
        wanted = [LISTS[each] for each in set(held)]
        names = {name for names in wanted for name in names}
        assert needs.uses == {name: sum(name in names for names in wanted) for name in names}


def test_what_it_came_from_stays_as_it_was() -> None:
    before = Needs().exchange([], [LISTS[0]])
    assert before.exchange([LISTS[0]], [LISTS[3]]).uses == {"c": 1}
    assert before.uses == {"a": 1}


def test_a_list_that_is_exchanged_for_itself_stays() -> None:
    before = Needs().exchange([], [LISTS[1]])
    assert before.exchange([LISTS[1]], [LISTS[1]]).uses == {"a": 1, "b": 1}
