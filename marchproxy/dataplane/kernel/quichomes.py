"""Which backends have chosen the connection IDs of QUIC that passes through unread: see bpf/quic.h.

The programs learn and forget. What they have learnt of backends that policy no longer has is taken out here,
as flows to these are ended.
"""

from collections.abc import Callable, Iterator, Mapping

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.policy.plan import Plan

_MAPPING = layouts.QUIC_KEY.pick("mapping")
_ADDRESS, _PORT = slice(0, 16), slice(32, 34)
"""Of a packed backend."""

type _Home = tuple[int, bytes, bytes]
"""Number of the mapping; address and port of the backend, packed."""


class QuicHomes:
    """Keeps the entries of `quic_homes`. For one thread."""

    def __init__(self, maps: Mapping[str, Map], number_of: Callable[[str], int]) -> None:
        self._map = maps["quic_homes"]
        self._number_of = number_of
        self._allowed: frozenset[_Home] | None = None
        """None: what an earlier daemon allowed is not known."""

    def follow(self, plan: Plan) -> None:
        """Forget the IDs of backends that `plan` does not have; those that take no new flows keep theirs."""
        allowed = frozenset(self._homes(plan))
        before, self._allowed = self._allowed, allowed
        if before is not None and before <= allowed:
            return
        self._map.delete_many(
            [
                key
                for key, value in self._map.items()
                if (int(_MAPPING.unpack(key)[0]), value[_ADDRESS], value[_PORT]) not in allowed
            ]
        )

    def _homes(self, plan: Plan) -> Iterator[_Home]:
        for listener in plan.carried:
            for rule in listener.rules:
                if rule.quic and rule.pool:
                    number = self._number_of(rule.mapping) if rule.mapping else 0
                    for each in rule.pool.backends:
                        yield number, layouts.pack_address(each.address), layouts.pack_port(each.port)
