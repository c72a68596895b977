"""Whom rules are for, as bits: one for each rule and class of sources that it matches."""

from collections.abc import Iterable

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.classes import SourceClasses
from marchproxy.dataplane.kernel.entries import BitsKey, Table
from marchproxy.policy.plan import ANYONE, Rule

WORD = 64

_EVERYONE = frozenset({layouts.CLASS_ANYONE})


class _Audience:
    """A pair of source lists, the classes that it comes to, and the rules that are for it."""

    __slots__ = ("classes", "rule", "rules")

    def __init__(self, rule: Rule, classes: frozenset[int]) -> None:
        self.rule = rule
        """Any of the rules: for its lists, which must live as long as their identity is a key."""
        self.classes = classes
        self.rules: set[int] = set()


class Audiences:
    """Keeps `bits` equal to the rules that have joined, while classes come and go.

    Rules share an audience by the identity of their lists: comparing ten thousand copies of a list of ten
    thousand services would take longer than everything else together.
    """

    def __init__(self, classes: SourceClasses, bits: Table[BitsKey, int]) -> None:
        self._classes = classes
        self._bits = bits
        self._audiences: dict[tuple[int, int], _Audience] = {}

    def join(self, number: int, rule: Rule) -> None:
        """Let rule `number` match its sources."""
        key = (id(rule.sources), id(rule.excluded))
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = _Audience(rule, self._matching(rule))
        audience.rules.add(number)
        self._add(number, audience.classes)

    def leave(self, number: int, rule: Rule) -> None:
        """Let rule `number` match nobody."""
        key = (id(rule.sources), id(rule.excluded))
        audience = self._audiences[key]
        audience.rules.remove(number)
        if not audience.rules:
            del self._audiences[key]
        self._subtract(number, audience.classes)

    def refresh(self, changed: frozenset[str]) -> None:
        """Follow services whose classes have changed."""
        for audience in self._audiences.values() if changed else ():
            rule = audience.rule
            if not rule.excluded and changed.isdisjoint(rule.sources):
                continue
            before, audience.classes = audience.classes, self._matching(rule)
            if before != audience.classes:
                for number in audience.rules:
                    self._subtract(number, before - audience.classes)
                    self._add(number, audience.classes - before)

    def _matching(self, rule: Rule) -> frozenset[int]:
        if ANYONE not in rule.sources:
            classes = self._classes.of_services(rule.sources)
            return classes - self._classes.of_services(rule.excluded) if rule.excluded else classes
        return self._classes.outside(rule.excluded) if rule.excluded else _EVERYONE

    def _add(self, number: int, classes: Iterable[int]) -> None:
        word, bit = divmod(number, WORD)
        for source_class in classes:
            place = (source_class, word)
            self._bits[place] = self._bits.entries.get(place, 0) | 1 << bit

    def _subtract(self, number: int, classes: Iterable[int]) -> None:
        word, bit = divmod(number, WORD)
        for source_class in classes:
            place = (source_class, word)
            if remaining := self._bits.entries[place] & ~(1 << bit):
                self._bits[place] = remaining
            else:
                del self._bits[place]
