"""The reference answer to "may A talk to B?".

What the kernel program and the sockets tier must agree with: the same lookups in the same order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from marchproxy.model.address import IPAddress, Prefix
from marchproxy.model.making import maker
from marchproxy.model.protocol import Protocol, Transport
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.actions import Actions
from marchproxy.policy.bits import TransitIndex
from marchproxy.policy.plan import (
    ANYONE,
    WILDCARDS,
    Listener,
    ListenerKey,
    Plan,
    Pool,
    Rule,
    TransitRule,
    listener_key,
    protocol_number,
)
from marchproxy.policy.routes import Routes
from marchproxy.policy.sources import SourceIndex


@dataclass(frozen=True, slots=True)
class Query:
    """A new flow, as its first packet tells it: both addresses are of one family."""

    source: IPAddress
    destination: IPAddress
    port: int
    """The destination's, 1 to 65535; 0 for ICMP."""
    transport: Transport | None
    """None: an ICMP or ICMPv6 echo request."""
    local: frozenset[IPAddress] | Callable[[IPAddress], bool] = frozenset()
    """The appliance's own addresses, or the function that knows them."""
    host: str = ""
    """What an HTTP request asks for where requests are read; in lower case, without a port."""
    path: str = ""
    """The same, as `canonical_path` gives it; empty: nothing was asked yet."""
    method: str = "GET"
    target: str = ""
    """Path and query as the client wrote them."""
    fields: tuple[tuple[str, str], ...] = ()
    """Headers, their names in lower case."""

    @property
    def protocol(self) -> str:
        """`tcp`, `udp` or `icmp`."""
        return self.transport.value if self.transport else Protocol.ICMP.value

    @property
    def number(self) -> int:
        """The protocol as in `Match`."""
        return protocol_number(self.transport)

    def is_local(self) -> bool:
        """Whether the destination is one of the appliance's own addresses."""
        return self.local(self.destination) if callable(self.local) else self.destination in self.local


make_query = maker(Query)


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of the flow, and what decided it."""

    verdict: Verdict
    reason: Reason
    source_services: tuple[str, ...]
    """Qualified, sorted; services that no rule names are not known to a plan."""
    listener: Listener | None = None
    rule: Rule | TransitRule | None = None
    destination_services: tuple[str, ...] = ()
    """The same of the destination, in transit."""
    blocked_by: str = ""
    """`block:ENTRY` or `block-list:NAME`, where no rule was asked."""

    @property
    def mapping(self) -> str:
        """Qualified name of the mapping that decided, or what blocks; empty where neither did."""
        return self.rule.mapping if self.rule else self.blocked_by

    @property
    def meant(self) -> frozenset[str]:
        """The services that a flow in transit goes to: of the destination's, those that its rule names.

        All of them where the rule is to anyone.
        """
        if not isinstance(self.rule, TransitRule) or ANYONE in self.rule.destinations:
            return frozenset(self.destination_services)
        return frozenset(self.destination_services).intersection(self.rule.destinations)

    @property
    def opens_itself(self) -> bool:
        """Whether it takes no credential: it is let through, or will be once TLS names the right host."""
        return self.verdict.lets_through or self.reason is Reason.SNI_MISSING

    @property
    def keeps(self) -> bool:
        """Whether a flow that runs already may go on: also where no backend takes new ones."""
        if self.reason is Reason.PRIVATE_ADDRESS:
            return False
        audited = self.rule is not None and self.rule.audit
        return self.verdict.lets_through or self.reason is Reason.NO_BACKEND or audited

    @property
    def openers(self) -> tuple[str, ...]:
        """The services whose credential opens it, if the rule wants one: those that the flow is of or goes
        to; where none of them has any, all that the mapping names.
        """
        if self.rule is None or not self.rule.credentials:
            return ()
        ends = {*self.source_services, *self.destination_services}
        if self.pool:
            ends.update(backend.service for backend in self.pool.backends)
        return tuple([name for name in self.rule.credentials if name in ends]) or self.rule.credentials

    @property
    def leads(self) -> bool:
        """Whether there is somewhere to go from a listener."""
        return isinstance(self.rule, Rule) and self.rule.leads

    @property
    def actions(self) -> Actions | None:
        """What is done with the request beside passing it on."""
        return self.rule.actions if isinstance(self.rule, Rule) else None

    @property
    def pool(self) -> Pool | None:
        """Where the flow may go from a listener; None in transit, where it goes to its destination."""
        return self.rule.pool if isinstance(self.rule, Rule) else None


@dataclass(frozen=True, slots=True)
class Matcher:
    """A rule with its names as sets."""

    rule: Rule
    sources: frozenset[str] | None
    """None: everyone."""
    excluded: frozenset[str]

    def matches(self, services: frozenset[str]) -> bool:
        """Whether the rule is for a source that belongs to exactly these services."""
        included = self.sources is None or not services.isdisjoint(self.sources)
        return included and services.isdisjoint(self.excluded)


def _proxies(listener: Listener) -> tuple[Prefix, ...]:
    return tuple(dict.fromkeys(prefix for rule in listener.rules for prefix in rule.proxy_from))


class Evaluator:
    """A plan, indexed for questions.

    An answer takes a few microseconds whatever the number of services, listeners and transit rules, and
    0.1 µs more for each rule of the listener that comes before the one that matches.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.sources = SourceIndex(plan.sources)
        self._listeners = {listener.key: listener for listener in plan.listeners}
        self._matchers: dict[ListenerKey, tuple[Matcher, ...]] = {}
        self._sets: dict[int, frozenset[str]] = {}
        self.reading = frozenset(
            listener.key
            for listener in plan.listeners
            if listener.key in plan.admitted and listener.reads_http
        )
        """Listeners that read HTTP requests."""
        self._proxies = {
            listener.key: proxies
            for listener in plan.listeners
            if listener.key in plan.admitted and (proxies := _proxies(listener))
        }
        self._routes: dict[tuple[ListenerKey, frozenset[str]], Routes] = {}

    @cached_property
    def transit(self) -> TransitIndex:
        """The transit rules, indexed when they are first asked about."""
        return TransitIndex(self.plan.transit)

    def evaluate(self, query: Query) -> Answer:
        """Answer as the pipeline would (DESIGN, "The packet pipeline", steps 3 and 6 to 9)."""
        services = self.sources.services(query.source)
        named = tuple(sorted(services))
        if self.is_management(query):
            return Answer(Verdict.HOST, Reason.PASSED_TO_HOST, named)
        blocked = self.blocked(query)
        if blocked:
            reason, owner = blocked
            return Answer(Verdict.DENY, reason, named, blocked_by=owner)
        listener = self.listener(query)
        if listener is not None:
            rule = self._rule(listener, services, query)
            return Answer(*decided(rule), named, listener, rule)
        if query.is_local():
            return Answer(Verdict.HOST, Reason.PASSED_TO_HOST, named)
        destinations = self.sources.services(query.destination)
        passing = self.transit.find(services, destinations, query.number, query.port)
        return Answer(*decided(passing), named, None, passing, tuple(sorted(destinations)))

    def proxies(self, query: Query) -> tuple[Prefix, ...]:
        """From where whoever connects to a listener says who its client is."""
        listener = self.listener(query) if self._proxies else None
        return self._proxies.get(listener.key, ()) if listener else ()

    def is_management(self, query: Query) -> bool:
        """Whether it goes to a management port of the appliance, which no policy can take over."""
        over_tcp = query.transport is Transport.TCP
        return over_tcp and query.port in self.plan.management and query.is_local()

    def blocked(self, query: Query) -> tuple[Reason, str] | None:
        """Why the addresses go nowhere, and what blocks them; management ports, which come first, aside."""
        blocks = self.plan.blocks
        if not blocks:
            return None
        owner = blocks.find(query.source)
        if owner:
            return Reason.BLOCKED_SOURCE, owner
        owner = blocks.find(query.destination)
        return (Reason.BLOCKED_DESTINATION, owner) if owner else None

    def listener(self, query: Query) -> Listener | None:
        """The listener that a query reaches: the one at its very address, or else at every local address."""
        if query.transport is None:
            return None
        found = self._at(query, query.transport)
        if found is None and query.transport is Transport.UDP and self.plan.http3:
            # HTTP/3 is decided where HTTP/1.1 would be.
            over_tcp = self._at(query, Transport.TCP)
            return over_tcp if over_tcp is not None and over_tcp.key in self.plan.http3 else None
        return found

    def _at(self, query: Query, transport: Transport) -> Listener | None:
        exact = self._listeners.get(listener_key(transport, query.destination, query.port))
        if exact is not None or not query.is_local():
            return exact
        return self._listeners.get(listener_key(transport, WILDCARDS[query.destination.version], query.port))

    def matchers(self, listener: Listener) -> tuple[Matcher, ...]:
        """The rules of a listener of this plan, in order, prepared when they are first asked for."""
        key = listener.key
        found = self._matchers.get(key)
        if found is None:
            found = self._matchers[key] = tuple(
                Matcher(
                    rule,
                    None if ANYONE in rule.sources else self._set(rule.sources),
                    self._set(rule.excluded),
                )
                for rule in listener.rules
            )
        return found

    def routes(self, listener: Listener, services: frozenset[str]) -> Routes:
        """The rules of a listener of this plan for a source that belongs to exactly these services."""
        key = listener.key, services
        found = self._routes.get(key)
        if found is None:
            matchers = self.matchers(listener)
            found = self._routes[key] = Routes.of(each.rule for each in matchers if each.matches(services))
        return found

    def _rule(self, listener: Listener, services: frozenset[str], query: Query) -> Rule | None:
        if listener.key in self.reading:
            return self.routes(listener, services).find(query.host, query.path, query)
        return next((each.rule for each in self.matchers(listener) if each.matches(services)), None)

    def _set(self, names: tuple[str, ...]) -> frozenset[str]:
        """One set for one tuple object: all rules that exclude a cluster's ten thousand services share it."""
        found = self._sets.get(id(names))
        if found is None:
            found = self._sets[id(names)] = frozenset(names)
        return found


def decided(rule: Rule | TransitRule | None) -> tuple[Verdict, Reason]:
    """What the first rule that matches comes to."""
    if rule is None:
        return Verdict.DENY, Reason.NO_MAPPING
    if rule.reason is Reason.FORWARDED:
        return Verdict.ALLOW, rule.reason
    nowhere = isinstance(rule, Rule) and not (rule.pool and rule.pool.table)
    return Verdict.AUDIT if rule.audit and not nowhere else Verdict.DENY, rule.reason


def evaluate(plan: Plan, query: Query) -> Answer:
    """One answer. Whoever has several questions about a plan keeps an `Evaluator`."""
    return Evaluator(plan).evaluate(query)
