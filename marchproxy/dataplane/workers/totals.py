"""What several processes have counted, added up."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from marchproxy.dataplane.records import Denials, LimitState, Outlier, TableFill, Traffic
from marchproxy.dataplane.workers.messages import Facts
from marchproxy.model.reason import Reason

if TYPE_CHECKING:
    from marchproxy.dataplane.admission.service import Admission


@dataclass(frozen=True, slots=True)
class Totals:
    """Of all workers."""

    counters: Mapping[Reason, Traffic]
    denials: Sequence[Denials]
    limits: Sequence[LimitState]
    fill: Sequence[TableFill]
    outliers: Sequence[Outlier]
    requests: Mapping[str, int]

    @classmethod
    def of(cls, facts: Iterable[Facts]) -> "Totals":
        """Added up."""
        total = Facts()
        for each in facts:
            total = cls.joined(total, each)
        return cls(total.counters, total.denials, total.limits, total.fill, total.outliers, total.requests)

    def beside(self, own: "Admission") -> "Totals":
        """With what the daemon's own part has counted."""
        mine = Facts(
            dict(own.counters()),
            tuple(own.denials()),
            tuple(own.limit_states()),
            outliers=tuple(own.outliers()),
            requests=own.request_counts(),
        )
        ours = Facts(
            self.counters,
            tuple(self.denials),
            tuple(self.limits),
            outliers=tuple(self.outliers),
            requests=self.requests,
        )
        both = self.joined(ours, mine)
        return replace(
            self,
            counters=both.counters,
            denials=both.denials,
            limits=both.limits,
            outliers=both.outliers,
            requests=both.requests,
        )

    @staticmethod
    def joined(one: Facts, other: Facts) -> Facts:
        """Both together; problems are those of `other`."""
        counters = dict(one.counters)
        for reason, traffic in other.counters.items():
            counters[reason] = counters.get(reason, Traffic()) + traffic
        denials = {(each.reason, each.mapping, each.audited): each for each in one.denials}
        for each in other.denials:
            key = each.reason, each.mapping, each.audited
            held = denials.get(key)
            denials[key] = replace(each, traffic=each.traffic + held.traffic) if held else each
        limits = {each.name: each for each in one.limits}
        for limit in other.limits:
            before = limits.get(limit.name)
            limits[limit.name] = (
                LimitState(limit.name, limit.passed + before.passed, limit.dropped + before.dropped)
                if before
                else limit
            )
        fill = {each.name: each for each in one.fill}
        for table in other.fill:
            had = fill.get(table.name)
            fill[table.name] = (
                TableFill(table.name, table.used + had.used, table.limit + had.limit) if had else table
            )
        keys = one.requests.keys() | other.requests.keys()
        return Facts(
            counters,
            tuple(denials.values()),
            tuple(limits.values()),
            tuple(fill.values()),
            other.problems,
            outliers=_together([*one.outliers, *other.outliers]),
            requests={key: one.requests.get(key, 0) + other.requests.get(key, 0) for key in keys},
        )

    @staticmethod
    def retired(facts: Facts) -> Facts:
        """What stays true of a process that has ended."""
        return Facts(facts.counters, facts.denials, facts.limits, requests=facts.requests)


def _together(outliers: Iterable[Outlier]) -> tuple[Outlier, ...]:
    """Each backend once: since the first left it out, for the reason of the last."""
    found: dict[object, Outlier] = {}
    for each in outliers:
        key = each.service, each.address, each.port
        held = found.get(key)
        if held is not None:
            last = max(held, each, key=lambda outlier: outlier.since)
            processes = held.processes + each.processes
            found[key] = replace(last, since=min(held.since, each.since), processes=processes)
        else:
            found[key] = each
    return tuple(found.values())
