"""Ending flows that a new policy no longer allows."""

import functools

from marchproxy.dataplane.hostaddresses import is_local
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.flows import FlowTable, Report
from marchproxy.dataplane.kernel.layouts import FlowKey
from marchproxy.dataplane.kernel.tables import difference, listener_key
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.blocks import Blocks
from marchproxy.policy.evaluate import Evaluator, Query
from marchproxy.policy.plan import Listener, Plan

_V4_START = layouts.ANY_V4[:12]


class FlowReview:
    """Asks the reference evaluator about running flows.

    The new plan need not name the same mapping for a flow: it stays while any mapping allows it. Its backend
    may have left the pool: a flow keeps the backend it has.
    """

    def __init__(self, table: FlowTable) -> None:
        self._table = table
        self._reviewed: Plan | None = None
        """None: what an earlier daemon's plan allowed is not known."""

    def review(self, plan: Plan, report: Report) -> None:
        """End what `plan` does not allow. Flows whose listener and sources are as before are passed over."""
        self._end_blocked(plan.blocks, report)
        changed = None if self._reviewed is None else changed_listeners(self._reviewed, plan)

        def is_concerned(raw_key: bytes) -> bool:
            if changed is None:
                return True
            end = raw_key[34:37]
            wildcard = layouts.ANY_V4 if raw_key.startswith(_V4_START, 16) else layouts.ANY_V6
            return raw_key[16:32] + end in changed or wildcard + end in changed

        if changed is None or changed:
            # Indexed only for a flow to ask about: ten thousand services take longer than all else here.
            evaluator, local = functools.cache(lambda: Evaluator(plan)), functools.cache(is_local)

            def is_refused(key: FlowKey) -> bool:
                query = Query(
                    layouts.read_address(key.source),
                    layouts.read_address(key.destination),
                    layouts.read_port(key.destination_port),
                    Transport.TCP if key.protocol == layouts.TCP else Transport.UDP,
                    local,
                )
                return not evaluator().evaluate(query).keeps

            self._table.end_where(is_concerned, is_refused, report)
        self._reviewed = plan

    def _end_blocked(self, blocks: Blocks, report: Report) -> None:
        """The programs drop their packets already; this is for the table, and for who wants to know."""
        if not blocks or (self._reviewed is not None and self._reviewed.blocks is blocks):
            return

        @functools.cache
        def is_blocked(address: bytes) -> bool:
            return bool(blocks.find(layouts.read_address(address)))

        def reason_of(key: FlowKey, backend: bytes) -> Reason | None:
            if is_blocked(key.source):
                return Reason.BLOCKED_SOURCE
            if is_blocked(key.destination) or is_blocked(backend):
                return Reason.BLOCKED_DESTINATION
            return None

        self._table.end_blocked(reason_of, report)


def changed_listeners(old: Plan, new: Plan) -> frozenset[bytes]:
    """Packed keys of listeners that decide differently: other rules, or sources with other prefixes.

    Which backends take new flows is no part of that, so a change of health makes no flow be looked at.
    """
    gone, came = difference(old.listeners, new.listeners)
    held = {listener_key(listener): _decisions(listener) for listener in gone}
    wanted = {listener_key(listener): _decisions(listener) for listener in came}
    changed = {key for key in held.keys() | wanted.keys() if held.get(key) != wanted.get(key)}
    names = old.sources.keys() | new.sources.keys()
    moved = {name for name in names if old.sources.get(name) != new.sources.get(name)}
    if moved:
        changed.update(
            listener_key(listener)
            for listener in new.listeners
            if any(rule.excluded or not moved.isdisjoint(rule.sources) for rule in listener.rules)
        )
    return frozenset(changed)


def _decisions(listener: Listener) -> list[tuple[tuple[str, ...], tuple[str, ...], Reason, bool]]:
    """What its rules come to for a flow that runs, which keeps its backend whatever becomes of the pool."""
    return [
        (
            *(rule.sources, rule.excluded),
            *(Reason.FORWARDED if rule.reason is Reason.NO_BACKEND else rule.reason, rule.audit),
        )
        for rule in listener.rules
    ]
