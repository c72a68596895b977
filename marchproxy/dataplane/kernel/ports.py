"""From the ports that rules name to classes of protocol and port."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.classes import Audience, ClassBits, ClassNumbers, Dimension
from marchproxy.dataplane.kernel.entries import Tables
from marchproxy.policy.plan import Match

type Matches = tuple[Match, ...]

_FIRST = {layouts.TCP: 0, layouts.UDP: 65536}
"""Protocol to the index of its port 0. Echo has one index."""


class PortAudiences:
    """Keeps classes of ports, and their bits, equal to the rules that have joined.

    Most rules share a few lists of ports. A rule with a list that others have costs one bit; a new list, a
    walk over the ends of all ranges.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._bits = ClassBits(tables)
        self._known: dict[Matches, Audience] = {}
        self._uses: Counter[Matches] = Counter()
        self._of_rule: dict[int, Matches] = {}
        self._numbers: dict[frozenset[Audience], int] = {frozenset(): layouts.CLASS_STRANGER}
        self._free = ClassNumbers("groups of ports")
        self._moved = False

    def join(self, number: int, matches: Matches) -> None:
        """Let rule `number` match these."""
        audience = self._known.get(matches)
        if audience is None:
            audience = self._known[matches] = Audience(Dimension.PORT, frozenset(matches))
            self._moved = True
        self._uses[matches] += 1
        self._of_rule[number] = matches
        self._bits.join(audience, number)

    def leave(self, number: int) -> None:
        """Let rule `number` match nothing."""
        matches = self._of_rule.pop(number)
        self._bits.leave(self._known[matches], number)
        self._uses[matches] -= 1
        if not self._uses[matches]:
            del self._uses[matches], self._known[matches]
            self._moved = True

    def settle(self) -> None:
        """Take over who has joined and left."""
        if not self._moved:
            return
        self._moved = False
        classes = array("I", bytes(4 * layouts.PORT_CLASSES))
        numbers = {frozenset[Audience](): layouts.CLASS_STRANGER}
        for first, end, audiences in self._stretches():
            number = numbers.get(audiences)
            if number is None:
                number = numbers[audiences] = self._numbers.get(audiences) or self._enter(audiences)
            if number:
                classes[first:end] = array("I", (number,)) * (end - first)
        for audiences, number in self._numbers.items():
            if audiences not in numbers:
                self._bits.assign(number, frozenset())
                self._free.give_back(number)
        self._numbers = numbers
        self._tables.port_classes = classes

    def _enter(self, audiences: frozenset[Audience]) -> int:
        number = self._free.take()
        self._bits.assign(number, audiences)
        return number

    def _stretches(self) -> Iterator[tuple[int, int, frozenset[Audience]]]:
        """Indexes that the same lists contain: first, one beyond the last, and these lists."""
        ends: defaultdict[int, list[Audience]] = defaultdict(list)
        for matches, audience in self._known.items():
            for first, end in _merged(matches):
                ends[first].append(audience)
                ends[end].append(audience)
        held: set[Audience] = set()
        before = 0
        for at in sorted(ends):
            if held:
                yield before, at, frozenset(held)
            # A list's ranges do not touch, so each of its ends changes sides.
            held.symmetric_difference_update(ends[at])
            before = at


def _merged(matches: Matches) -> list[tuple[int, int]]:
    """The indexes that a list of ports covers, as ranges that do not touch."""
    ranges = sorted(_ranges(matches))
    merged: list[tuple[int, int]] = []
    for first, end in ranges:
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((first, end))
    return merged


def _ranges(matches: Matches) -> Iterator[tuple[int, int]]:
    for match in matches:
        if match.protocol not in _FIRST:
            yield layouts.PORT_ECHO, layouts.PORT_ECHO + 1
            continue
        zero = _FIRST[match.protocol]
        for ports in match.ports:
            yield zero + ports.first, zero + ports.last + 1
        if not match.ports:
            yield zero, zero + 65536
