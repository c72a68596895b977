"""Ending flows that a new policy no longer allows."""

import functools
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import chain

from marchproxy.dataplane.hostaddresses import is_local
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.flows import FlowTable, Report
from marchproxy.dataplane.kernel.layouts import FlowKey
from marchproxy.dataplane.kernel.tables import difference, listener_key
from marchproxy.dataplane.kernel.tunnels import HeldTunnel
from marchproxy.dataplane.records import Flow
from marchproxy.model.address import Prefix, is_single
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.blocks import Blocks
from marchproxy.policy.evaluate import Evaluator, Query
from marchproxy.policy.plan import Listener, Plan, Rule, TransitRule

type Concern = Callable[[bytes], bool]
type JudgeTunnel = Callable[[Plan, Flow, HeldTunnel], Reason | None]
"""Why a plan ends the flow of a tunnel that user space has handed off; None: it stays."""

_V4_START = layouts.ANY_V4[:12]
_TRANSPORTS = {layouts.TCP: Transport.TCP, layouts.UDP: Transport.UDP}


class FlowReview:
    """Asks the reference evaluator about running flows.

    The new plan need not name the same mapping for a flow: it stays while any mapping allows it. Its backend
    may have left the pool: a flow keeps the backend it has.
    """

    def __init__(self, table: FlowTable) -> None:
        self._table = table
        self.judge_tunnel: JudgeTunnel = judge_by_mapping
        """For whoever admitted the tunnels to say what the plan thinks of them."""
        self._reviewed: Plan | None = None
        """None: what an earlier daemon's plan allowed is not known."""

    def review(self, plan: Plan, report: Report) -> None:
        """End what `plan` does not allow. Flows that nothing has changed for are passed over."""
        self._end_blocked(plan.blocks, report)
        concerned = _anything if self._reviewed is None else concern(self._reviewed, plan)
        if concerned is not None:
            # Indexed only for a flow to ask about: ten thousand services take longer than all else here.
            evaluator, local = functools.cache(lambda: Evaluator(plan)), functools.cache(is_local)

            def is_refused(key: FlowKey) -> bool:
                query = Query(
                    layouts.read_address(key.source),
                    layouts.read_address(key.destination),
                    layouts.read_port(key.destination_port),
                    _TRANSPORTS.get(key.protocol),
                    local,
                )
                return not evaluator().evaluate(query).keeps

            self._table.end_where(concerned, is_refused, report)
        judge = self.judge_tunnel
        self._table.end_tunnels(lambda flow, held: judge(plan, flow, held), report)
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


def judge_by_mapping(plan: Plan, flow: Flow, held: HeldTunnel) -> Reason | None:
    """A tunnel stays for as long as its mapping is there and allows something."""
    rules: Iterator[Rule | TransitRule] = chain(
        chain.from_iterable(listener.rules for listener in plan.listeners), plan.transit
    )
    mapping = flow.decision.mapping
    allowed = any(rule.mapping == mapping and rule.reason is not Reason.DENY_MAPPING for rule in rules)
    return None if allowed else Reason.POLICY_CHANGED


def concern(old: Plan, new: Plan) -> Concern | None:
    """Which flows the new plan may decide differently about, told by their packed keys; None: none."""
    moved = moved_services(old, new)
    listeners = changed_listeners(old, new, moved)
    transit = changed_transit(old, new, moved)
    if not listeners and transit is None:
        return None

    def is_concerned(raw_key: bytes) -> bool:
        end = raw_key[34:37]
        wildcard = layouts.ANY_V4 if raw_key.startswith(_V4_START, 16) else layouts.ANY_V6
        if raw_key[16:32] + end in listeners or wildcard + end in listeners:
            return True
        return transit is not None and transit(raw_key)

    return is_concerned


def changed_transit(old: Plan, new: Plan, moved: AbstractSet[str]) -> Concern | None:
    """Which flows in transit the new plan may decide differently about; None: none.

    Names resolve to something else all the time, so it matters that what only adds addresses to what is
    allowed makes no flow be looked at, and that other single addresses make only their own flows be.
    """
    if len(old.transit) != len(new.transit) or not all(map(_decides_alike, old.transit, new.transit)):
        return _anything
    lost: set[Prefix] = set()
    for name in moved & _named(new.transit) if moved else ():
        before, after = set(old.sources.get(name, ())), set(new.sources.get(name, ()))
        lost |= before - after
        if any(_may_refuse(rule, name) for rule in new.transit):
            lost |= after - before
    if not lost:
        return None
    if not all(map(is_single, lost)):
        return _anything
    addresses = {layouts.pack_address(prefix.network_address) for prefix in lost}
    return lambda raw_key: raw_key[:16] in addresses or raw_key[16:32] in addresses


def _anything(raw_key: bytes) -> bool:
    return True


def _decides_alike(old: TransitRule, new: TransitRule) -> bool:
    return old is new or replace(old, mapping=new.mapping, expires=new.expires) == new


def _named(rules: Iterable[TransitRule]) -> set[str]:
    """The services that some rule names. Mostly few lists, which many rules share."""
    lists = {
        id(names): names
        for rule in rules
        for names in (rule.sources, rule.excluded, rule.destinations, rule.excluded_destinations)
    }
    return set().union(*lists.values())


def _may_refuse(rule: TransitRule, name: str) -> bool:
    """Whether an address more in a service may make the rule refuse what was allowed."""
    if name in rule.excluded or name in rule.excluded_destinations:
        return True
    return rule.reason is not Reason.FORWARDED and (name in rule.sources or name in rule.destinations)


def moved_services(old: Plan, new: Plan) -> set[str]:
    """Services whose prefixes are others. Mostly they are the same objects, and a client waits for this."""
    before, after = dict(old.sources), dict(new.sources)
    moved = {
        name
        for name, prefixes in after.items()
        if before.get(name) is not prefixes and before.get(name) != prefixes
    }
    return moved | (before.keys() - after.keys())


def changed_listeners(old: Plan, new: Plan, moved: AbstractSet[str]) -> frozenset[bytes]:
    """Packed keys of listeners that decide differently: other rules, or sources with other prefixes.

    Which backends take new flows is no part of that, so a change of health makes no flow be looked at.
    """
    gone, came = difference(old.carried, new.carried)
    held = {listener_key(listener): _decisions(listener) for listener in gone}
    wanted = {listener_key(listener): _decisions(listener) for listener in came}
    changed = {key for key in held.keys() | wanted.keys() if held.get(key) != wanted.get(key)}
    if moved:
        changed.update(
            listener_key(listener)
            for listener in new.carried
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
