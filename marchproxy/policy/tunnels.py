"""May a client have a tunnel? What the explicit proxy asks: the name it was given and the address that it led
to.

The rules are those of routed traffic: who may go somewhere may also go there by the proxy. The difference is
the name. It says which services are meant, also where their addresses are not known, and it must not say more
than that: whoever owns a public name can have it point inwards. So a name opens no inward address; that takes
a mapping to a service with that address, or `Settings.private_answers`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv6Address, ip_address

from marchproxy.model.address import IPAddress, is_single
from marchproxy.model.inward import embedded, inward
from marchproxy.model.making import maker
from marchproxy.model.patterns import Patterns
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Answer, Evaluator, decided
from marchproxy.policy.plan import ANYONE, TransitRule

_NARROW = frozenset({"a private address"})
"""Inward addresses that a prefix may stand for. All others are of one host: the service must have them as
such."""
_METADATA = frozenset(map(ip_address, ("100.100.100.200", "168.63.129.16", "fd00:ec2::254")))
"""Where clouds tell a machine its secrets, beside 169.254.169.254."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A tunnel, or a datagram, as a client of the explicit proxy wants it."""

    source: IPAddress
    name: str
    """The host name, lower case and without a trailing dot; empty: the client gave the address."""
    address: IPAddress
    """Where it would go."""
    port: int
    """1 to 65535."""
    transport: Transport = Transport.TCP


make_wish = maker(Wish)


class TunnelEvaluator:
    """Answers about tunnels by the plan of an `Evaluator`."""

    def __init__(self, evaluator: Evaluator, local: Callable[[IPAddress], bool]) -> None:
        """`local` knows the appliance's own addresses."""
        self._evaluator = evaluator
        self._local = local

    @cached_property
    def _patterns(self) -> Patterns:
        return Patterns(self._named)

    @cached_property
    def _named(self) -> dict[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for service, hosts in self._evaluator.plan.named.items():
            for host in hosts:
                found.setdefault(host, set()).add(service)
        return {host: frozenset(services) for host, services in found.items()}

    @cached_property
    def _private(self) -> Patterns:
        return Patterns(self._evaluator.plan.settings.private_answers)

    def may_ask(self, source: IPAddress, port: int, transport: Transport) -> bool:
        """Whether there is anywhere that `source` may go to on `port` (0: on any), with a credential or
        without.

        For whom there is not no name is looked up: a proxy is no DNS server for strangers.
        """
        transit = self._evaluator.transit
        return transit.leads(self._evaluator.sources.services(source), transport.number, port)

    def services(self, name: str) -> frozenset[str]:
        """The services that have this host name or a wildcard above it."""
        return frozenset().union(*(self._named[each] for each in self._patterns.matching(name)))

    def refuse(self, source: IPAddress, name: str) -> Answer | None:
        """What can be said before `name` is looked up: that it, or `source`, is blocked."""
        blocks = self._evaluator.plan.blocks
        if owner := blocks.find(source):
            return self._refusal(source, Reason.BLOCKED_SOURCE, owner)
        if name and (owner := blocks.find_name(name)):
            return self._refusal(source, Reason.BLOCKED_DESTINATION, owner)
        return None

    def _refusal(self, source: IPAddress, reason: Reason, owner: str) -> Answer:
        sources = tuple(sorted(self._evaluator.sources.services(source)))
        return Answer(Verdict.DENY, reason, sources, blocked_by=owner)

    def evaluate(self, wish: Wish) -> Answer:
        """The answer; with AUTH_MISSING a credential of one of its `openers` opens it."""
        address = plain(wish.address)
        blocked = self.refuse(wish.source, wish.name) or self._blocked(wish.source, address)
        if blocked:
            return blocked
        what = _kind(address)
        own = self._is_own(address)
        if wish.name and (what or own) and not self._private.matching(wish.name):
            return self._inwards(wish, address, what, own=own)
        answer = self._match(wish, address, self.services(wish.name) if wish.name else frozenset())
        if not wish.name and self._is_narrow(what, own=own) and not self._means(answer, address):
            return _private(answer)
        return answer

    def _inwards(self, wish: Wish, address: IPAddress, what: str, *, own: bool) -> Answer:
        """A name that led inwards: the address alone decides, and somebody must have meant it."""
        answer = self._match(wish, address, frozenset())
        narrow = self._is_narrow(what, own=own)
        if self._means(answer, address) if narrow else self._means(answer, address, wide=True):
            return answer
        return _private(self._match(wish, address, self.services(wish.name)))

    def _match(self, wish: Wish, address: IPAddress, named: frozenset[str]) -> Answer:
        evaluator = self._evaluator
        sources = evaluator.sources.services(wish.source)
        destinations = evaluator.sources.services(address) | named
        rule = evaluator.transit.find(sources, destinations, wish.transport.number, wish.port)
        return Answer(
            *decided(rule),
            tuple(sorted(sources)),
            None,
            rule,
            destination_services=tuple(sorted(destinations)),
        )

    def _blocked(self, source: IPAddress, address: IPAddress) -> Answer | None:
        """Also where IPv6 only embeds what is blocked."""
        for each in _forms(address):
            if owner := self._evaluator.plan.blocks.find(each):
                return self._refusal(source, Reason.BLOCKED_DESTINATION, owner)
        return None

    def _is_own(self, address: IPAddress) -> bool:
        return any(map(self._local, _forms(address)))

    def _is_narrow(self, what: str, *, own: bool) -> bool:
        """Whether only a service with that very address means it: routing does not lead there, or harms."""
        return own or (bool(what) and what not in _NARROW)

    def _means(self, answer: Answer, address: IPAddress, *, wide: bool = False) -> bool:
        """Whether the rule is to a service that has the address: as a single one, or, `wide`, in a prefix."""
        rule = answer.rule
        if not isinstance(rule, TransitRule) or ANYONE in rule.destinations:
            return False
        sources = self._evaluator.plan.sources
        return any(
            address in prefix and (wide or is_single(prefix))
            for service in answer.meant
            for prefix in sources.get(service, ())
            if prefix.version == address.version
        )


def plain(address: IPAddress) -> IPAddress:
    """The IPv4 address that IPv6 maps (RFC 4291 section 2.5.5.2): there a socket would connect."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _forms(address: IPAddress) -> tuple[IPAddress, ...]:
    """The address, and the IPv4 address that it embeds."""
    inner = embedded(address) if isinstance(address, IPv6Address) else None
    return (address,) if inner is None else (address, inner)


def _kind(address: IPAddress) -> str:
    """What kind of inward address it is; empty for one of the world's. Metadata is never the world's."""
    return inward(address) if _METADATA.isdisjoint(_forms(address)) else "a metadata address"


def _private(answer: Answer) -> Answer:
    """`answer`, unless it refuses anyway, refused."""
    if not (answer.opens_itself or answer.openers):
        return answer
    return Answer(
        Verdict.DENY,
        Reason.PRIVATE_ADDRESS,
        answer.source_services,
        None,
        answer.rule,
        answer.destination_services,
    )
