"""Transit rules as map entries: their numbers, their ranks, and whom they are for."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.audiences import Audiences
from marchproxy.dataplane.kernel.classes import WORD, Dimension
from marchproxy.dataplane.kernel.entries import Tables
from marchproxy.dataplane.kernel.ports import PortAudiences
from marchproxy.dataplane.kernel.runs import Runs
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import ANYONE, TransitRule

GAP = 1 << 15
"""Between the ranks of neighbours, so that another rule fits in without moving them."""

type Shape = tuple[bool, bool]
"""Whether sources and destinations are anyone."""


class TransitTables:
    """Keeps the tables equal to the plan's transit rules.

    Numbers of rules say nothing about their order, and never change while a rule lives. Rules of one shape
    share words: rules for some sources and rules for some destinations in one word would make every packet
    look at it. Ranks say the order.
    """

    def __init__(self, tables: Tables, audiences: Audiences, number_of: Callable[[str], int]) -> None:
        self._rules = tables.transit_rules
        self._extents = tables.transit_extents
        self._audiences = audiences
        self._ports = PortAudiences(tables)
        self._number_of = number_of
        self._words = Runs("words of transit rules", layouts.RULES // WORD)
        self._free: defaultdict[Shape, list[int]] = defaultdict(list)
        self._held: tuple[TransitRule, ...] = ()
        self._numbers: dict[int, int] = {}
        """Of rules by their identity."""
        self._ranks: dict[int, int] = {}

    def build(self, rules: tuple[TransitRule, ...]) -> None:
        """Make the tables those of `rules`. Raises `PlanTooLarge`."""
        if rules is self._held:
            return
        wanted = set(map(id, rules))
        for rule in self._held:
            if id(rule) not in wanted:
                self._remove(rule)
        came = [rule for rule in rules if id(rule) not in self._numbers]
        self._rank(rules)
        # Those with the same sources side by side: their bits are then in few words.
        for rule in sorted(came, key=lambda rule: (rule.sources, rule.destinations)):
            self._place(rule)
        self._ports.settle()
        self._held = rules

    def _place(self, rule: TransitRule) -> None:
        number = self._numbers[id(rule)] = self._take(_shape(rule))
        self._write(rule)
        self._audiences.join(Dimension.SOURCE, number, rule.sources, rule.excluded)
        self._audiences.join(Dimension.DESTINATION, number, rule.destinations, rule.excluded_destinations)
        self._ports.join(number, rule.matches)

    def _remove(self, rule: TransitRule) -> None:
        number = self._numbers.pop(id(rule))
        del self._ranks[id(rule)]
        del self._rules[number]
        self._audiences.leave(Dimension.SOURCE, number)
        self._audiences.leave(Dimension.DESTINATION, number)
        self._ports.leave(number)
        self._free[_shape(rule)].append(number)

    def _write(self, rule: TransitRule) -> None:
        mapping = self._number_of(rule.mapping) if rule.mapping else 0
        flags = layouts.RULE_AUDIT if rule.audit else 0
        flags |= layouts.RULE_DIVERT if is_diverted(rule) else 0
        rank = self._ranks[id(rule)]
        self._rules[self._numbers[id(rule)]] = layouts.TRANSIT_RULE.struct.pack(
            mapping, rank, rule.reason, flags
        )

    def _take(self, shape: Shape) -> int:
        free = self._free[shape]
        if not free:
            word = self._words.take(1)
            self._extents[0] = max(self._extents.entries.get(0, 0), word + 1)
            first = word * WORD
            free.extend(range(first + WORD - 1, first - 1, -1))
        return free.pop()

    def _rank(self, rules: Sequence[TransitRule]) -> None:
        """Give new rules ranks between their neighbours'; where they do not fit, all rules new ones."""
        ranks = _between(rules, self._ranks)
        if ranks is None:
            self._ranks = {id(rule): (place + 1) * GAP for place, rule in enumerate(rules)}
            for rule in self._held:
                if id(rule) in self._numbers:
                    self._write(rule)
        else:
            self._ranks.update(ranks)


def is_diverted(rule: TransitRule) -> bool:
    """Whether user space looks at the connections that a rule would refuse."""
    return rule.sni is not None and rule.reason is Reason.SNI_MISSING


def _shape(rule: TransitRule) -> Shape:
    return ANYONE in rule.sources, ANYONE in rule.destinations


def _between(rules: Sequence[TransitRule], ranks: dict[int, int]) -> dict[int, int] | None:
    """Ranks for the rules that have none, or None where the gaps are too small."""
    given: dict[int, int] = {}
    run: list[TransitRule] = []
    low = 0
    for rule in (*rules, None):
        if rule is None:
            high = low + (len(run) + 1) * GAP
        elif id(rule) in ranks:
            high = ranks[id(rule)]
        else:
            run.append(rule)
            continue
        step = (high - low) // (len(run) + 1)
        if run and (not step or high >= 1 << 32):
            return None
        given.update((id(each), low + step * place) for place, each in enumerate(run, 1))
        run, low = [], high
    return given
