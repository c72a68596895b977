"""How many established flows the backends of LEAST_CONNECTIONS carry.

The programs count in `active` while flows are established and end, for the backends that have an entry there.
What ends otherwise (idle, by a new policy), and what was established before a backend had an entry, they do
not see: so all is counted again with every sweep.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.records import BackendLoad
from marchproxy.policy.plan import Backend, Plan
from marchproxy.policy.pools import compared

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
        self._backends: Sequence[Backend] = ()

    def want(self, plan: Plan) -> None:
        """Have the backends counted that `plan` compares, and no others."""
        self._backends = compared(plan)
        wanted = frozenset(map(_key, self._backends))
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

    def loads(self) -> Sequence[BackendLoad]:
        """What is counted now. May be called by any thread: entries are only read."""
        if not self._backends:
            return ()
        counts = self._read()
        return [
            # The programs count down what they have not counted up, until the next sweep.
            BackendLoad(each.service, each.address, each.port, max(0, counts.get(_key(each), 0)))
            for each in self._backends
        ]

    def _read(self) -> dict[bytes, int]:
        return {key: int(_COUNT.unpack(raw)[0]) for key, raw in self._active.items()}


def _key(backend: Backend) -> bytes:
    return layouts.BACKEND_KEY.struct.pack(
        layouts.pack_address(backend.address), layouts.pack_port(backend.port)
    )
