"""A plan as map entries, without I/O.

`TableBuilder` turns one plan after the other into `Tables`. What a listener, rule or pool occupies is
remembered by the identity of the plan's objects, which the compiler keeps where nothing changed: a change
costs its own size, and a look at every listener. Nothing depends on earlier plans but the numbers that were
given out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.audiences import Audiences
from marchproxy.dataplane.kernel.backends import PoolTables, SourceTowards
from marchproxy.dataplane.kernel.classes import Dimension
from marchproxy.dataplane.kernel.entries import Tables
from marchproxy.dataplane.kernel.limits import LimitTables, SlotsOf, slots_in_order
from marchproxy.dataplane.kernel.runs import PlanTooLarge, Runs
from marchproxy.dataplane.kernel.transit import TransitTables
from marchproxy.policy.plan import Listener, Plan, Rule


@dataclass(slots=True)
class _Run:
    """Rules in a row, and the listeners that have just these: those of a range of ports share them."""

    first: int
    rules: tuple[Rule, ...]
    listeners: int = 0

    @property
    def identity(self) -> tuple[int, ...]:
        """Of these very rules, as long as the run lives."""
        return tuple(map(id, self.rules))


class TableBuilder:
    """Builds tables for one plan after the other.

    `number_of` gives a mapping its number in flows, `slots_of` what limits count their slots.
    """

    def __init__(
        self,
        number_of: Callable[[str], int],
        source_towards: SourceTowards,
        slots_of: SlotsOf = slots_in_order,
    ) -> None:
        self.tables = Tables()
        """Those of the last plan."""
        self.pools = PoolTables(self.tables, source_towards)
        self._number_of = number_of
        self._audiences = Audiences(self.tables)
        self._limits = LimitTables(self.tables, slots_of)
        self._transit = TransitTables(self.tables, self._audiences, number_of)
        self._rule_runs = Runs("rules of listeners", layouts.RULES)
        self._listeners: tuple[Listener, ...] = ()
        self._runs: dict[tuple[int, ...], _Run] = {}
        self._run_of: dict[int, _Run] = {}
        """By the identity of listeners."""

    def build(self, plan: Plan) -> Tables:
        """Make the tables those of `plan`.

        Raises `PlanTooLarge` when something does not fit; the builder is then of no more use.
        """
        gone, came = difference(self._listeners, plan.carried)
        for listener in gone:
            self._remove(listener)
        for listener in came:
            self._place(listener)
        self._transit.build(plan.transit)
        self._audiences.settle(plan.sources)
        self._limits.settle(plan.limits)
        self._listeners = plan.carried
        self.pools.tidy()
        self._expect_room()
        return self.tables

    def _place(self, listener: Listener) -> None:
        run = self._runs.get(tuple(map(id, listener.rules))) or self._write(listener.rules)
        run.listeners += 1
        self._run_of[id(listener)] = run
        self.tables.listeners[listener_key(listener)] = layouts.LISTENER.struct.pack(
            run.first, len(run.rules)
        )

    def _remove(self, listener: Listener) -> None:
        run = self._run_of.pop(id(listener))
        run.listeners -= 1
        if not run.listeners:
            self._erase(run)
        del self.tables.listeners[listener_key(listener)]

    def _write(self, rules: tuple[Rule, ...]) -> _Run:
        run = _Run(self._rule_runs.take(len(rules)), rules)
        for number, rule in enumerate(rules, run.first):
            self.tables.rules[number] = self._pack(rule)
            self._audiences.join(Dimension.LISTENER, number, rule.sources, rule.excluded)
        self._runs[run.identity] = run
        return run

    def _erase(self, run: _Run) -> None:
        for number, rule in enumerate(run.rules, run.first):
            del self.tables.rules[number]
            self._audiences.leave(Dimension.LISTENER, number)
            if rule.pool:
                self.pools.leave(rule.pool)
        self._rule_runs.give_back(run.first, len(run.rules))
        del self._runs[run.identity]

    def _pack(self, rule: Rule) -> bytes:
        first, size = (self.pools.enter(rule.pool), len(rule.pool.table)) if rule.pool else (0, 0)
        flags = layouts.RULE_AUDIT if rule.audit and size else 0
        flags |= layouts.RULE_QUIC if rule.quic else 0
        balance = layouts.BALANCES[rule.balance]
        # What audit lets through for want of a mapping is of none, as is what is denied for want of one.
        mapping = self._number_of(rule.mapping) if rule.mapping else 0
        return layouts.RULE.struct.pack(mapping, first, size, rule.reason, flags, balance)

    def _expect_room(self) -> None:
        """For tables whose size does not show when numbers are given out."""
        for what, table, limit in (
            ("listeners", self.tables.listeners, layouts.LISTENERS),
            ("pairs of source and mapping", self.tables.bits, layouts.SOURCE_BITS),
            ("pairs of service and transit mapping", self.tables.transit_bits, layouts.TRANSIT_BITS),
        ):
            if len(table.entries) > limit:
                raise PlanTooLarge(
                    f"too many {what}: the kernel's table holds {limit}",
                    hint="use fewer mappings, or mappings with fewer sources",
                )


def listener_key(listener: Listener) -> bytes:
    """`mp_listener_key` without its last byte, the bank."""
    return (
        layouts.pack_address(listener.address)
        + layouts.pack_port(listener.port)
        + bytes((listener.transport.number,))
    )


def difference(
    old: Sequence[Listener], new: Sequence[Listener]
) -> tuple[Sequence[Listener], Sequence[Listener]]:
    """What is only in `old`, and only in `new`, by identity.

    Both come sorted, so they are walked side by side; sets of twenty thousand identities take three times as
    long. In another order something that is in both may be found in both results, and is placed anew.
    """
    gone, came = [], []
    at = to = 0
    while at < len(old) and to < len(new):
        if old[at] is new[to]:
            at, to = at + 1, to + 1
            continue
        before, after = old[at].key, new[to].key
        if before <= after:
            gone.append(old[at])
            at += 1
        if before >= after:
            came.append(new[to])
            to += 1
    return [*gone, *old[at:]], [*came, *new[to:]]
