"""Who is denied most: refusals added up by who wanted it, what they wanted, and the services of both."""

import heapq
from collections.abc import Mapping

from marchproxy.dataplane.flowtotals import Grouping, GroupKey, keys
from marchproxy.dataplane.records import Decision

MOST = 16_384
"""Keys that are kept of each: a flood from invented addresses must not fill the memory."""
ENDS = (Grouping.SOURCE, Grouping.DESTINATION, Grouping.SERVICE)
"""What is added up here. Reasons and mappings are counted by the tiers, where nothing is lost."""


class Refused:
    """Packets, as the records of refusals have them. Of too many keys the half with less is forgotten: who is
    refused most stays, since whoever comes once is never among them.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._held: dict[Grouping, dict[GroupKey, int]] = {by: {} for by in ENDS}

    def take(self, decision: Decision) -> None:
        """Add one refusal, whose services are known."""
        for by, held in self._held.items():
            for key in keys(decision, by):
                held[key] = held.get(key, 0) + decision.count
            if len(held) > self._most:
                kept = heapq.nlargest(self._most // 2, held.items(), key=lambda item: item[1])
                self._held[by] = dict(kept)

    def packets(self, by: Grouping) -> Mapping[GroupKey, int]:
        """By one of `ENDS`. Changes when more is refused."""
        return self._held[by]
