"""Which service an address belongs to, for records whose tier knows addresses only."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from ipaddress import ip_network
from itertools import chain

from marchproxy.dataplane.records import Decision, Flow
from marchproxy.model.address import HostName, IPAddress, Prefix
from marchproxy.model.entities import Service
from marchproxy.model.names import cluster_of, qualify
from marchproxy.model.snapshot import Snapshot
from marchproxy.policy.evaluate import Evaluator
from marchproxy.policy.plan import Plan
from marchproxy.policy.sources import SourceIndex

_REMEMBERED = 4096
"""Addresses whose service is not looked up again."""


class ServiceNames:
    """Names out of one plan, indexed when first asked for: a plan replaced within seconds costs nothing."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        # The few that talk all the time are asked about with each event.
        self._claims = lru_cache(_REMEMBERED)(self._claimed)
        self._known_sides: dict[tuple[Hashable, ...], tuple[tuple[str, str], tuple[IPAddress, ...]]] = {}

    @cached_property
    def evaluator(self) -> Evaluator:
        """The plan, ready to be questioned."""
        return Evaluator(self._plan)

    def source(self, address: IPAddress, mapping: str) -> str:
        """The service that `address` speaks for under `mapping`; empty for a stranger.

        Several may claim it. One that the mapping names as a source goes first, then one of the mapping's
        cluster, then the alphabet.
        """
        return self._claims(address, mapping, asked=False)

    def asked(self, address: IPAddress, mapping: str) -> str:
        """The service that somebody asked for by its own address, chosen likewise; empty for a stranger."""
        return self._claims(address, mapping, asked=True)

    def destination(self, backend: IPAddress, port: int) -> str:
        """The service of a backend; empty where the plan has none."""
        return self._backends.get((backend, port), "")

    def reached(self, asked: IPAddress, mapping: str, backend: IPAddress, port: int) -> str:
        """The service that a flow is to; empty for a stranger.

        Behind a listener that of its backend. What is routed to the very address that was asked for is to a
        service with that address, whichever others have a backend there.
        """
        if asked == backend:
            return self.asked(asked, mapping) or self.destination(backend, port)
        return self.destination(backend, port) or self.asked(asked, mapping)

    def complete(self, decision: Decision, backend: str = "") -> Decision:
        """The decision with its services, where the tier left them empty.

        Of the destination where it is asked for itself: behind a listener it is known once there is a flow,
        and then that of its `backend`.
        """
        source, destination = decision.source_service, decision.destination_service or backend
        source = source or self.source(decision.source, decision.mapping)
        destination = destination or self.asked(decision.destination, decision.mapping)
        if (source, destination) == (decision.source_service, decision.destination_service):
            return decision
        return decision.between(source, destination)

    def _claimed(self, address: IPAddress, mapping: str, *, asked: bool) -> str:
        wanted = (self._rule_destinations if asked else self._rule_sources).get(mapping, ())
        cluster = cluster_of(mapping)
        claims = self.evaluator.sources.services(address)

        def order(name: str) -> tuple[bool, bool, str]:
            return not any(name in names for names in wanted), cluster_of(name) != cluster, name

        return min(claims, key=order, default="")

    def complete_flow(self, flow: Flow) -> Flow:
        """The flow with both services, where the tier left them empty."""
        decision = flow.decision
        if decision.source_service or decision.destination_service:
            completed = self.complete(decision, decision.destination_service or self._to(flow))
            return flow.by(completed) if completed is not decision else flow
        source, destination = self._sides(flow)
        return flow.by(decision.between(source, destination)) if source or destination else flow

    def _to(self, flow: Flow) -> str:
        decision = flow.decision
        return self.reached(decision.destination, decision.mapping, flow.backend, flow.backend_port)

    def _sides(self, flow: Flow) -> tuple[str, str]:
        """Both services of a flow whose tier knows neither.

        Remembered by the addresses as objects, which are the same for the same host as long as it talks: what
        they hash to is computed by Python each time, and takes longer than all else.
        """
        decision = flow.decision
        ends = decision.source, decision.destination, flow.backend
        key = (*map(id, ends), decision.mapping, flow.backend_port)
        held = self._known_sides.get(key)
        if held is None:
            if len(self._known_sides) >= _REMEMBERED:
                self._known_sides.clear()
            completed = self.complete(decision, self._to(flow))
            # With the objects, so that no others can come to have their ids.
            held = self._known_sides[key] = (
                (completed.source_service, completed.destination_service),
                ends,
            )
        return held[0]

    @cached_property
    def _rule_sources(self) -> Mapping[str, Sequence[frozenset[str]]]:
        local = ((rule.mapping, rule.sources) for each in self._plan.listeners for rule in each.rules)
        routed = ((rule.mapping, rule.sources) for rule in self._plan.transit)
        return _by_mapping(chain(local, routed))

    @cached_property
    def _rule_destinations(self) -> Mapping[str, Sequence[frozenset[str]]]:
        return _by_mapping((rule.mapping, rule.destinations) for rule in self._plan.transit)

    @cached_property
    def _backends(self) -> dict[tuple[IPAddress, int], str]:
        rules = (rule for listener in self._plan.listeners for rule in listener.rules)
        pools = {id(rule.pool): rule.pool for rule in rules if rule.pool}
        backends = (backend for pool in pools.values() for backend in pool.backends)
        return {(backend.address, backend.port): backend.service for backend in backends}


def _by_mapping(named: Iterable[tuple[str, tuple[str, ...]]]) -> Mapping[str, Sequence[frozenset[str]]]:
    """What each mapping names. One set for one list: many mappings may name the same ten thousand."""
    sets: dict[int, frozenset[str]] = {}
    found: dict[str, list[frozenset[str]]] = {}
    for mapping, names in named:
        if id(names) not in sets:
            sets[id(names)] = frozenset(names)
        held = found.setdefault(mapping, [])
        if not any(each is sets[id(names)] for each in held):
            held.append(sets[id(names)])
    return found


class AllServices:
    """Services by address, also those that no rule names and a plan therefore does not know.

    Indexed anew when it is asked after a revision: ten thousand services take a tenth of a second.
    """

    def __init__(
        self, snapshot: Callable[[], Snapshot], resolved: Mapping[str, Sequence[IPAddress]] | None = None
    ) -> None:
        """`snapshot` says what is carried out now, `resolved` what its host names stand for, where known."""
        self._snapshot = snapshot
        self._resolved = resolved or {}
        self._indexed = Snapshot()
        self._index = SourceIndex({})

    def name(self, address: IPAddress) -> str:
        """A service with that address, the first by the alphabet; empty for a stranger."""
        return min(self.names(address), default="")

    def names(self, address: IPAddress) -> frozenset[str]:
        """All services with that address."""
        snapshot = self._snapshot()
        if snapshot is not self._indexed:
            self._index = SourceIndex(dict(self._prefixes(snapshot)))
            self._indexed = snapshot
        return self._index.services(address)

    def _prefixes(self, snapshot: Snapshot) -> Iterator[tuple[str, tuple[Prefix, ...]]]:
        for cluster in snapshot.clusters:
            for service in cluster.services:
                if found := tuple(prefixes_of(service, self._resolved)):
                    yield qualify(cluster.name, service.name), found


def prefixes_of(service: Service, resolved: Mapping[str, Iterable[IPAddress]]) -> Iterator[Prefix]:
    """The addresses of a service; `resolved` is what host names stand for, where known."""
    for address in service.addresses:
        if isinstance(address, HostName):
            yield from map(ip_network, resolved.get(address.name, ()))
        else:
            yield address
