"""Another try for clients whose first packets went to a backend that has just been found down."""

from collections.abc import Iterator

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.flows import FlowTable
from marchproxy.policy.plan import Backend, Plan


class Failover:
    """Forgets unanswered flows to backends that go down.

    A client that got no answer repeats its first packet for a minute or more, and each repetition keeps the
    flow alive that leads nowhere. What has been answered stays: it may only be slow. So does what was opened
    to a drained backend, which is about to answer.
    """

    def __init__(self, table: FlowTable) -> None:
        self._table = table
        self._down: frozenset[bytes] = frozenset()

    def follow(self, plan: Plan) -> None:
        """Look at what takes no new flows by `plan`, and did by the one before."""
        down = frozenset(map(_place, _failed(plan)))
        if down - self._down:
            self._table.forget_unanswered(down - self._down)
        self._down = down


def _failed(plan: Plan) -> Iterator[Backend]:
    pools = {
        id(rule.pool): rule.pool
        for listener in plan.carried
        for rule in listener.rules
        if rule.pool and rule.pool.idle
    }
    if pools:
        drained = {item.backend.address for item in plan.watched if item.drained}
        for pool in pools.values():
            yield from (backend for backend in pool.idle if backend.address not in drained)


def _place(backend: Backend) -> bytes:
    return layouts.pack_address(backend.address) + layouts.pack_port(backend.port)
