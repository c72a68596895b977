"""Classes of source addresses, and the rules that each of them matches, as bits.

An audience is whom rules are for: services that match, and services that do not. A class is the set of
audiences that an address is in. Ten thousand services that rules only name together, as a collection, are
therefore one class, and a rule for all of them is one bit.
"""

from collections.abc import Iterable

from marchproxy.dataplane.kernel.entries import BitsKey, Table

WORD = 64

type Lists = tuple[frozenset[str], frozenset[str]]
"""Services that match, or ANYONE; and services that do not."""


class Audience:
    """Two lists of services, and the rules that are for them."""

    __slots__ = ("classes", "excluded", "settled", "sources", "words")

    def __init__(self, sources: frozenset[str], excluded: frozenset[str]) -> None:
        self.sources = sources
        self.excluded = excluded
        self.settled = False
        """Whether classes may contain it."""
        self.words: dict[int, int] = {}
        """The bits of its rules: number of the word, to 64 of them."""
        self.classes: set[int] = set()

    @property
    def lists(self) -> Lists:
        """What no other audience has."""
        return self.sources, self.excluded


class ClassBits:
    """Keeps `bits` equal to what classes consist of, and the rules of their audiences."""

    def __init__(self, bits: Table[BitsKey, int]) -> None:
        self._bits = bits
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
        self._write(number, {word for audience in before ^ audiences for word in audience.words})

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
            self._write(number, (word,))

    def _write(self, number: int, words: Iterable[int]) -> None:
        """Bring a class' bits up to date. Words without a bit are absent."""
        audiences = self._members.get(number, ())
        for word in words:
            mask = 0
            for audience in audiences:
                mask |= audience.words.get(word, 0)
            if mask:
                self._bits[number, word] = mask
            elif (number, word) in self._bits.entries:
                del self._bits[number, word]
