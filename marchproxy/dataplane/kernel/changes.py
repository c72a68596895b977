"""Ending flows that a new policy no longer allows."""

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.flows import TCP, FlowTable
from marchproxy.dataplane.kernel.layouts import FlowEntry, FlowKey
from marchproxy.dataplane.tier import EventSink
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Verdict
from marchproxy.policy.evaluate import Evaluator, Query
from marchproxy.policy.plan import Plan


class FlowReview:
    """Asks the reference evaluator about running flows.

    The new plan need not name the same mapping for a flow: it stays while any mapping allows it. Its backend may
    have left the pool: a flow keeps the backend it has.
    """

    def __init__(self, table: FlowTable) -> None:
        self._table = table

    def review(self, old: Plan, new: Plan, sink: EventSink) -> None:
        """End what `new` does not allow. Nothing can be newly forbidden where listeners and sources are as before."""
        kept = {id(listener) for listener in new.listeners}
        lost = any(id(listener) not in kept for listener in old.listeners)
        first = not old.listeners
        if not first and not lost and old.sources == new.sources:
            return
        evaluator = Evaluator(new)

        def is_refused(key: FlowKey, entry: FlowEntry) -> bool:
            source, destination = layouts.read_address(key.source), layouts.read_address(key.destination)
            transport = Transport.TCP if key.protocol == TCP else Transport.UDP
            # A flow exists, so its destination was exact or local; asking as if it were local covers both.
            query = Query(
                source, destination, layouts.read_port(key.destination_port), transport, lambda _: True
            )
            return evaluator.evaluate(query).verdict is not Verdict.ALLOW

        self._table.end_where(is_refused, sink)
