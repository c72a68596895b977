"""Which services some rule names, kept up to date as rules come and go."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, eq=False)
class Needs:
    """Names in lists, each list counted once however many rules share it, and each name once for a list.

    Lists are told apart by identity: ten thousand rules may share one of ten thousand names.
    """

    uses: dict[str, int] = field(default_factory=dict)
    """In how many lists a name is."""
    _lists: dict[int, tuple[tuple[str, ...], int]] = field(default_factory=dict, repr=False)
    """By identity: the list, which thereby stays, and how often it is held."""

    def exchange(self, lost: Iterable[tuple[str, ...]], gained: Iterable[tuple[str, ...]]) -> "Needs":
        """The needs without the lists in `lost`, all of which are held, and with those in `gained`."""
        uses, lists = dict(self.uses), dict(self._lists)
        for names in gained:
            _, count = lists.get(id(names), (names, 0))
            lists[id(names)] = (names, count + 1)
            if not count:
                for name in names:
                    uses[name] = uses.get(name, 0) + 1
        for names in lost:
            _, count = lists[id(names)]
            if count > 1:
                lists[id(names)] = (names, count - 1)
                continue
            del lists[id(names)]
            for name in names:
                uses[name] -= 1
                if not uses[name]:
                    del uses[name]
        return Needs(uses, lists)
