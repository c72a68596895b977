"""Which service an address belongs to, for records whose tier knows addresses only."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

from marchproxy.dataplane.records import Decision, Flow
from marchproxy.model.address import IPAddress
from marchproxy.model.names import cluster_of
from marchproxy.policy.evaluate import Evaluator
from marchproxy.policy.plan import ANYONE, Plan


class ServiceNames:
    """Names out of one plan, indexed when first asked for: a plan replaced within seconds costs nothing."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @cached_property
    def evaluator(self) -> Evaluator:
        """The plan, ready to be questioned."""
        return Evaluator(self._plan)

    def source(self, address: IPAddress, mapping: str) -> str:
        """The service that `address` speaks for under `mapping`; empty for a stranger.

        Several may claim it. One that the mapping names as a source goes first, then one of the mapping's
        cluster, then the alphabet.
        """
        return self._claimed(address, mapping, self._rule_sources)

    def asked(self, address: IPAddress, mapping: str) -> str:
        """The service that somebody asked for by its own address, chosen likewise; empty for a stranger."""
        return self._claimed(address, mapping, self._rule_destinations)

    def destination(self, backend: IPAddress, port: int) -> str:
        """The service of a backend; empty where the plan has none."""
        return self._backends.get((backend, port), "")

    def complete(self, decision: Decision) -> Decision:
        """The decision with its services, where the tier left them empty.

        Of the destination where it is asked for itself: behind a listener it is known once there is a flow.
        """
        source = decision.source_service or self.source(decision.source, decision.mapping)
        destination = decision.destination_service or self.asked(decision.destination, decision.mapping)
        if (source, destination) == (decision.source_service, decision.destination_service):
            return decision
        return replace(decision, source_service=source, destination_service=destination)

    def _claimed(self, address: IPAddress, mapping: str, named: Mapping[str, frozenset[str]]) -> str:
        wanted = named.get(mapping, frozenset())
        cluster = cluster_of(mapping)
        claims = self.evaluator.sources.services(address)

        def order(name: str) -> tuple[bool, bool, str]:
            return name not in wanted, cluster_of(name) != cluster, name

        return min(claims, key=order, default="")

    def complete_flow(self, flow: Flow) -> Flow:
        """The flow with both services, where the tier left them empty."""
        decision = flow.decision
        if not decision.destination_service:
            service = self.destination(flow.backend, flow.backend_port)
            decision = replace(decision, destination_service=service) if service else decision
        decision = self.complete(decision)
        return replace(flow, decision=decision) if decision is not flow.decision else flow

    @cached_property
    def _rule_sources(self) -> dict[str, frozenset[str]]:
        rules = (rule for listener in self._plan.listeners for rule in listener.rules)
        named = {rule.mapping: frozenset(rule.sources) - {ANYONE} for rule in rules}
        return named | {rule.mapping: frozenset(rule.sources) - {ANYONE} for rule in self._plan.transit}

    @cached_property
    def _rule_destinations(self) -> dict[str, frozenset[str]]:
        return {rule.mapping: frozenset(rule.destinations) - {ANYONE} for rule in self._plan.transit}

    @cached_property
    def _backends(self) -> dict[tuple[IPAddress, int], str]:
        rules = (rule for listener in self._plan.listeners for rule in listener.rules)
        pools = {id(rule.pool): rule.pool for rule in rules if rule.pool}
        backends = (backend for pool in pools.values() for backend in pool.backends)
        return {(backend.address, backend.port): backend.service for backend in backends}
