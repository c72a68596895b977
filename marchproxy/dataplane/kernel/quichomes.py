"""Which backends have chosen the connection IDs of QUIC that passes through unread: see bpf/quic.h.

The programs learn and forget. What they have learnt of backends that policy no longer has is taken out here,
and what is from an address that is not towards the backend any more: answers would not come back.
"""

from collections.abc import Callable, Iterator, Mapping

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.backends import SourceTowards
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.policy.plan import Plan

_MAPPING = layouts.QUIC_KEY.pick("mapping")
_ADDRESS, _SOURCE, _PORT = slice(0, 16), slice(16, 32), slice(32, 34)
"""Of a packed backend."""

type _Home = tuple[int, bytes, bytes]
"""Number of the mapping; address and port of the backend, packed."""


class QuicHomes:
    """Keeps the entries of `quic_homes` and `quic_offers`. For one thread."""

    def __init__(
        self, maps: Mapping[str, Map], number_of: Callable[[str], int], source_towards: SourceTowards
    ) -> None:
        self._maps = maps["quic_homes"], maps["quic_offers"]
        self._number_of = number_of
        self._source_towards = source_towards
        self._may_hold = True
        """An earlier daemon may have left some."""

    def follow(self, plan: Plan) -> None:
        """Forget the IDs of backends that `plan` does not have; those that take no new flows keep theirs.

        To be called again now and then: a backend that is gone goes on to answer the flows that it has, and
        the programs learn from it.
        """
        homes = dict(self._homes(plan))
        if homes or self._may_hold:
            for each in self._maps:
                each.delete_many([key for key, value in each.items() if not _is_of(homes, key, value)])
        self._may_hold = bool(homes)

    def _homes(self, plan: Plan) -> Iterator[tuple[_Home, bytes]]:
        """With our own address towards each; empty: there is no way just now."""
        for listener in plan.carried:
            for rule in listener.rules:
                if rule.quic and rule.pool:
                    number = self._number_of(rule.mapping) if rule.mapping else 0
                    for each in rule.pool.backends:
                        own = self._source_towards(each.address)
                        home = number, layouts.pack_address(each.address), layouts.pack_port(each.port)
                        yield home, layouts.pack_address(own) if own else b""


def _is_of(homes: Mapping[_Home, bytes], key: bytes, value: bytes) -> bool:
    own = homes.get((int(_MAPPING.unpack(key)[0]), value[_ADDRESS], value[_PORT]))
    return own is not None and own in (b"", value[_SOURCE])
