"""Answers of the kernel that hold for a moment, so that a thousand clients do not ask a thousand times."""

import time
from collections.abc import Callable, Hashable

MOMENT = 1.0
"""Seconds."""
MOST = 4096
"""Answers that are kept."""


def lately[K: Hashable, V](
    ask: Callable[[K], V], clock: Callable[[], float] = time.monotonic
) -> Callable[[K], V]:
    """`ask`, whose answer to the same question is at most `MOMENT` old."""
    answers: dict[K, V] = {}
    until = clock() + MOMENT

    def answer(question: K) -> V:
        nonlocal until
        now = clock()
        if now >= until or len(answers) >= MOST:
            answers.clear()
            until = now + MOMENT
        try:
            return answers[question]
        except KeyError:
            found = answers[question] = ask(question)
            return found

    return answer
