"""Classes of packets, and the rules that each of them satisfies, as bits.

A packet has three classes: of its source address, its destination address, and its protocol and port. An
audience is whom or what rules are for in one of these dimensions: services that match and services that do
not, or ports. A class is the set of audiences that an address or port is in. Ten thousand services that rules
only name together, as a collection, are therefore one class, and a rule for all of them is one bit.
"""

from collections.abc import Iterable
from enum import IntEnum

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.entries import Table, Tables, tagged
from marchproxy.dataplane.kernel.runs import PlanTooLarge

WORD = 64
_NOTHING = bytes(layouts.TRANSIT_DIGEST.size)


class Dimension(IntEnum):
    """What rules look at. Listeners' rules have numbers, and so bits, of their own."""

    SOURCE = layouts.DIMENSION_SOURCE
    DESTINATION = layouts.DIMENSION_DESTINATION
    PORT = layouts.DIMENSION_PORT
    LISTENER = 3


class Audience:
    """Whom rules are for in one dimension, and which rules these are."""

    __slots__ = ("classes", "dimension", "excluded", "included", "settled", "words")

    def __init__(
        self, dimension: Dimension, included: frozenset[object], excluded: frozenset[object] = frozenset()
    ) -> None:
        self.dimension = dimension
        self.included = included
        """Names of services, ANYONE, or what a port audience consists of."""
        self.excluded = excluded
        self.settled = False
        """Whether classes may contain it."""
        self.words: dict[int, int] = {}
        """The bits of its rules: number of the word, to 64 of them."""
        self.classes: set[int] = set()


class ClassNumbers:
    """Gives out numbers of classes, and takes them back. Raises `PlanTooLarge`.

    A number may be given out again at once: what it meant before is in no bank that is read together with
    what it means now.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._free: list[int] = []
        self._next = layouts.CLASS_ANYONE + 1

    def take(self) -> int:
        """A number that nobody has."""
        if self._free:
            return self._free.pop()
        if self._next >= layouts.CLASSES:
            raise PlanTooLarge(
                f"too many {self._what}: the kernel's table holds {layouts.CLASSES}",
                hint="use fewer mappings, or mappings that name the same services",
            )
        self._next += 1
        return self._next - 1

    def give_back(self, number: int) -> None:
        """Nobody has it any more."""
        self._free.append(number)


class ClassBits:
    """Keeps the tables of bits equal to what classes consist of, and the rules of their audiences."""

    def __init__(self, tables: Tables) -> None:
        self._listener_bits = tables.bits
        self._transit_bits = tables.transit_bits
        self._digests = Digests(tables)
        self._members: dict[int, frozenset[Audience]] = {}

    def assign(self, number: int, audiences: frozenset[Audience]) -> None:
        """Make a class consist of these; of none: nothing is left of it."""
        before = self._members.pop(number, frozenset())
        if audiences:
            self._members[number] = audiences
        for audience in before - audiences:
            audience.classes.remove(number)
        for audience in audiences - before:
            audience.classes.add(number)
        concerned: dict[Dimension, set[int]] = {}
        for audience in before ^ audiences:
            concerned.setdefault(audience.dimension, set()).update(audience.words)
        for dimension, words in concerned.items():
            self._write(number, dimension, words)

    def join(self, audience: Audience, rule: int) -> None:
        """Let a rule be for an audience."""
        word, bit = divmod(rule, WORD)
        audience.words[word] = audience.words.get(word, 0) | 1 << bit
        self._follow(audience, word)

    def leave(self, audience: Audience, rule: int) -> None:
        """Let a rule be for nobody."""
        word, bit = divmod(rule, WORD)
        audience.words[word] &= ~(1 << bit)
        if not audience.words[word]:
            del audience.words[word]
        self._follow(audience, word)

    def _follow(self, audience: Audience, word: int) -> None:
        for number in audience.classes:
            self._write(number, audience.dimension, (word,))

    def _write(self, number: int, dimension: Dimension, words: Iterable[int]) -> None:
        """Bring a class' bits up to date. Words without a bit are absent."""
        members = [each for each in self._members.get(number, ()) if each.dimension is dimension]
        for word in words:
            mask = 0
            for audience in members:
                mask |= audience.words.get(word, 0)
            if dimension is Dimension.LISTENER:
                _put(self._listener_bits, (number, word), mask)
            else:
                _put(self._transit_bits, (tagged(number, dimension), word), mask)
                self._digests.note(number, dimension, word, mask)


class Digests:
    """Keeps the digests of classes in transit equal to their bits."""

    def __init__(self, tables: Tables) -> None:
        self._table = tables.transit_digests
        self._masks: dict[int, dict[int, int]] = {}
        """By index: the words of a class as they came; the first of them is in its digest."""

    def note(self, number: int, dimension: Dimension, word: int, mask: int) -> None:
        """A word of a class has these bits now."""
        index = dimension * layouts.CLASSES + number
        masks = self._masks.setdefault(index, {})
        if mask and word in masks and word != next(iter(masks)):
            masks[word] = mask
            return
        if mask:
            masks[word] = mask
        else:
            masks.pop(word, None)
        if not masks:
            del self._masks[index]
        packed = _digest(masks)
        if packed != self._table.entries.get(index, _NOTHING):
            self._table[index] = packed


def _digest(masks: dict[int, int]) -> bytes:
    if not masks:
        return _NOTHING
    residues = 0
    for word in masks:
        residues |= 1 << word % WORD
    first = next(iter(masks))
    return layouts.TRANSIT_DIGEST.struct.pack(residues, masks[first], first, len(masks) > 1)


def _put(table: Table[tuple[int, int], int], key: tuple[int, int], mask: int) -> None:
    if mask:
        table[key] = mask
    elif key in table.entries:
        del table[key]
