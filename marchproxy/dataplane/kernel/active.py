"""How many established flows the backends of LEAST_CONNECTIONS carry.

The programs count in `active` while flows are established and end, for the backends that have an entry there.
What ends otherwise (idle, by a new policy), and what was established before a backend had an entry, they do
not see: so all is counted again with every sweep.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.model.entities import Balance
from marchproxy.policy.plan import Backend, Plan

_FLAGS = layouts.FLOW.pick("flags")
_ADDRESS, _PORT = slice(16, 32), slice(34, 36)
"""Of the rewritten destination in a packed flow."""
_COUNT = layouts.I64
_PAD = bytes(2)


class ActiveFlows:
    """Keeps the entries of `active`. For one thread."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._active = maps["active"]
        self._flows = maps["flows"]
        self._wanted: frozenset[bytes] | None = None
        """None: what an earlier daemon wanted is not known."""

    def want(self, plan: Plan) -> None:
        """Have the backends counted that `plan` compares, and no others."""
        wanted = frozenset(map(_key, _compared(plan)))
        if wanted == self._wanted:
            return
        held = set(self._active.keys())
        self._active.delete_many(list(held - wanted))
        self._active.update_many([(key, _COUNT.pack(0)) for key in wanted - held])
        self._wanted = wanted
        self.correct()

    def correct(self) -> None:
        """Count again, and put right what is wrong.

        Flows go on being established meanwhile. A count is wrong if it is outside of what the programs'
        own count was before and after; what they add between the second reading and the writing is lost
        until the next time.
        """
        if not self._wanted:
            return
        before = self._read()
        found: Counter[bytes] = Counter()
        for _, raw in self._flows.items():
            if not _FLAGS.unpack(raw)[0] & layouts.FLAG_REPLY:
                found[raw[_ADDRESS] + raw[_PORT] + _PAD] += 1
        wrong = [
            (key, _COUNT.pack(found[key]))
            for key, after in self._read().items()
            if not min(after, before.get(key, 0)) <= found[key] <= max(after, before.get(key, 0))
        ]
        self._active.update_many(wrong)

    def _read(self) -> dict[bytes, int]:
        return {key: int(_COUNT.unpack(raw)[0]) for key, raw in self._active.items()}


def _compared(plan: Plan) -> Iterator[Backend]:
    pools = {
        id(rule.pool): rule.pool
        for listener in plan.carried
        for rule in listener.rules
        if rule.balance is Balance.LEAST_CONNECTIONS and rule.pool
    }
    for pool in pools.values():
        yield from pool.backends


def _key(backend: Backend) -> bytes:
    return layouts.BACKEND_KEY.struct.pack(
        layouts.pack_address(backend.address), layouts.pack_port(backend.port)
    )
