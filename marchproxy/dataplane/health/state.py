"""One backend's health: what checks find goes in, changes come out. No I/O, and time is passed in."""


class Health:
    """Up until a check says otherwise.

    A backend that nobody has checked yet counts as up, and its first check decides alone: there is nothing
    yet that a single failure could be an exception from. From then on it takes `fall` failures in a row to
    bring it down and `rise` successes in a row to bring it up, so it cannot change faster than checks come.
    """

    __slots__ = ("_against", "_fall", "_rise", "checked", "since", "up", "why")

    def __init__(self, rise: int, fall: int, now: float) -> None:
        self.up = True
        self.since = now
        """When it became what it is."""
        self.checked = False
        """Whether any check has ended yet."""
        self.why = ""
        """What the last check found wrong; empty: nothing."""
        self._rise = rise
        self._fall = fall
        self._against = 0
        """Results in a row that contradict `up`."""

    def follow(self, rise: int, fall: int) -> None:
        """Count by other numbers from now on; what was counted stays."""
        self._rise, self._fall = rise, fall

    def observe(self, failure: str, now: float) -> bool:
        """Take in what a check found (empty: it succeeded). Whether the backend is now something else."""
        succeeded, first = not failure, not self.checked
        self.checked, self.why = True, failure
        if succeeded is self.up:
            self._against = 0
            return False
        self._against += 1
        if not first and self._against < (self._rise if succeeded else self._fall):
            return False
        self.up, self.since, self._against = succeeded, now, 0
        return True
