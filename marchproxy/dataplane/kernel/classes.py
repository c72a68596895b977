"""Classes of packets, and the rules that each of them satisfies, as bits.

A packet has three classes: of its source address, its destination address, and its protocol and port. An
audience is whom or what rules are for in one of these dimensions: services that match and services that do
not, or ports. A class is the set of audiences that an address or port is in. Ten thousand services that rules
only name together, as a collection, are therefore one class, and a rule for all of them is one bit.
"""

from collections.abc import Iterable
from enum import IntEnum
from struct import Struct

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.entries import Table, Tables, tagged

WORD = 64
_GROUPS = Struct(f"={layouts.TRANSIT_GROUPS}Q")


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


class ClassBits:
    """Keeps the tables of bits equal to what classes consist of, and the rules of their audiences."""

    def __init__(self, tables: Tables) -> None:
        self._listener_bits = tables.bits
        self._transit_bits = tables.transit_bits
        self._transit_words = tables.transit_words
        self._members: dict[int, frozenset[Audience]] = {}
        """By tagged class."""

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
        masks = {}
        for word in words:
            mask = 0
            for audience in members:
                mask |= audience.words.get(word, 0)
            masks[word] = mask
        if dimension is Dimension.LISTENER:
            _put(self._listener_bits, number, masks)
        else:
            _put(self._transit_bits, tagged(number, dimension), masks)
            self._say_which(tagged(number, dimension), masks)

    def _say_which(self, key: int, masks: dict[int, int]) -> None:
        """Note which words of a class are there."""
        held = self._transit_words.entries.get(key)
        groups = list(_GROUPS.unpack(held)) if held else [0] * layouts.TRANSIT_GROUPS
        for word, mask in masks.items():
            group, bit = divmod(word, WORD)
            groups[group] = groups[group] | 1 << bit if mask else groups[group] & ~(1 << bit)
        if any(groups):
            packed = _GROUPS.pack(*groups)
            if packed != held:
                self._transit_words[key] = packed
        elif held:
            del self._transit_words[key]


def _put(table: Table[tuple[int, int], int], number: int, masks: dict[int, int]) -> None:
    for word, mask in masks.items():
        if mask:
            table[number, word] = mask
        elif (number, word) in table.entries:
            del table[number, word]
