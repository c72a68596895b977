"""lately: the same question is asked once in a moment, and again after it."""

from marchproxy.dataplane import lately as module
from marchproxy.dataplane.lately import MOMENT, lately


def test_an_answer_holds_for_a_moment() -> None:
    asked: list[str] = []
    now = 0.0

    def ask(question: str) -> int:
        asked.append(question)
        return len(asked)

    answer = lately(ask, lambda: now)
    assert [answer("a"), answer("a"), answer("b")] == [1, 1, 2]
    now = MOMENT
    assert answer("a") == 3
    assert asked == ["a", "b", "a"]


def test_no_more_is_kept_than_there_is_room_for() -> None:
    answer = lately(lambda number: object(), lambda: 0.0)
    first = answer(0)
    for number in range(1, module.MOST):
        answer(number)
    assert answer(0) is not first
