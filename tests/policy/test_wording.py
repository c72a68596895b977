"""Lists in sentences."""

from marchproxy.policy.wording import listed


def test_a_few_are_all_named() -> None:
    assert [listed("abc"[:count]) for count in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


def test_the_rest_of_many_is_counted() -> None:
    assert listed(map(str, range(10))) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
