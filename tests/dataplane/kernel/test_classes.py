"""classes: bits are those of the rules of a class' audiences, at every moment."""

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.classes import WORD, Audience, ClassBits, Dimension
from marchproxy.dataplane.kernel.entries import BitsKey, Tables, tagged

RULES = (0, 1, WORD - 1, WORD, WORD + 1, 5 * WORD, 69 * WORD)


class BitsMachine(RuleBasedStateMachine):
    """Rules join and leave audiences while classes come, change and go."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = Tables()
        self.bits = ClassBits(self.tables)
        self.audiences = [
            Audience(dimension, frozenset(name))
            for dimension, name in zip(
                (Dimension.LISTENER, Dimension.SOURCE, Dimension.SOURCE), "abc", strict=True
            )
        ]
        self.held: dict[int, int] = {}
        """Rule to audience."""
        self.classes: dict[int, frozenset[int]] = {}

    @rule(which=st.sampled_from(RULES), audience=st.integers(0, 2))
    def join_or_leave(self, which: int, audience: int) -> None:
        if which in self.held:
            self.bits.leave(self.audiences[self.held.pop(which)], which)
        else:
            self.held[which] = audience
            self.bits.join(self.audiences[audience], which)

    @rule(number=st.integers(1, 3), consists_of=st.frozensets(st.integers(0, 2)))
    def assign(self, number: int, consists_of: frozenset[int]) -> None:
        self.classes[number] = consists_of
        self.bits.assign(number, frozenset(self.audiences[index] for index in consists_of))

    @invariant()
    def bits_are_those_of_the_rules(self) -> None:
        assert self._found(self.tables.bits.entries) == self._expected((0,), lambda number: number)
        transit = self._found(self.tables.transit_bits.entries)
        assert transit == self._expected((1, 2), lambda number: tagged(number, Dimension.SOURCE))
        every = [*self.tables.bits.entries.values(), *self.tables.transit_bits.entries.values()]
        assert all(every), "words without a bit are absent"

    @invariant()
    def a_digest_says_what_there_may_be_and_holds_one_word(self) -> None:
        digests = {
            index: layouts.TRANSIT_DIGEST.struct.unpack(packed)
            for index, packed in self.tables.transit_digests.entries.items()
            if any(packed)
        }
        words: dict[int, dict[int, int]] = {}
        for (key, word), mask in self.tables.transit_bits.entries.items():
            words.setdefault(key, {})[word] = mask
        assert {tagged(index % layouts.CLASSES, index // layouts.CLASSES) for index in digests} == set(words)
        for index, (residues, rules, word, more) in digests.items():
            held = words[tagged(index % layouts.CLASSES, index // layouts.CLASSES)]
            assert residues == sum(1 << residue for residue in {each % WORD for each in held})
            assert (rules, bool(more)) == (held[word], len(held) > 1)

    def _expected(self, audiences: tuple[int, ...], key: Callable[[int], int]) -> set[tuple[int, int]]:
        return {
            (key(number), which)
            for number, consists_of in self.classes.items()
            for which, audience in self.held.items()
            if audience in consists_of and audience in audiences
        }

    def _found(self, entries: dict[BitsKey, int]) -> set[tuple[int, int]]:
        return {
            (number, word * WORD + bit)
            for (number, word), mask in entries.items()
            for bit in range(WORD)
            if mask >> bit & 1
        }


TestBits = BitsMachine.TestCase
