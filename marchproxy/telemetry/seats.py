"""How many values a label may have: scrapes stay small whatever operators name and strangers try."""

MOST = 500
"""Values of one label in one metric."""
OTHER = "(other)"
"""The value that stands for all further ones. No name of ours has parentheses."""


class Seats:
    """Who comes first keeps a series as long as the daemon runs: gone and back looks like a reset."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._taken: dict[str, set[str]] = {}

    def seat(self, metric: str, value: str) -> str:
        """The label's value in this metric: itself, or `OTHER`."""
        taken = self._taken.setdefault(metric, set())
        if value in taken:
            return value
        if len(taken) >= self._most:
            return OTHER
        taken.add(value)
        return value
