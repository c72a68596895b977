"""classes: bits are those of the rules of a class' audiences, at every moment."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from marchproxy.dataplane.kernel.classes import WORD, Audience, ClassBits
from marchproxy.dataplane.kernel.entries import BitsKey, Table

RULES = (0, 1, WORD - 1, WORD, WORD + 1, 5 * WORD)


class BitsMachine(RuleBasedStateMachine):
    """Rules join and leave audiences while classes come, change and go."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Table[BitsKey, int] = Table()
        self.bits = ClassBits(self.table)
        self.audiences = [Audience(frozenset(name), frozenset()) for name in "abc"]
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
        expected = {
            (number, which)
            for number, consists_of in self.classes.items()
            for which, audience in self.held.items()
            if audience in consists_of
        }
        found = {
            (number, word * WORD + bit)
            for (number, word), mask in self.table.entries.items()
            for bit in range(WORD)
            if mask >> bit & 1
        }
        assert found == expected
        assert all(self.table.entries.values()), "words without a bit are absent"


TestBits = BitsMachine.TestCase


def test_lists_tell_audiences_apart() -> None:
    one = Audience(frozenset("a"), frozenset())
    assert one.lists == (frozenset("a"), frozenset())
    assert one != Audience(*one.lists), (
        "they are told apart by identity, and kept once for each pair of lists"
    )
