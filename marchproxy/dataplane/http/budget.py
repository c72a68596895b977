"""How many requests may be sent again: a share of all, so that retries do not finish off who is overloaded.

Of one process, and of each mapping by itself. No I/O.
"""

from dataclasses import dataclass

SMALL = 3.0
"""Retries that also those get who ask seldom."""
MOST = 100.0
"""Retries that are saved up at most."""


@dataclass(slots=True)
class Budget:
    """That of a mapping: what it has saved up."""

    left: float = SMALL

    def earn(self, share: float) -> None:
        """A request has come."""
        self.left = min(self.left + share, MOST)

    def spend(self) -> bool:
        """Whether one may be sent again."""
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True
