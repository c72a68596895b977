"""From what mappings contribute to listeners: which rules stand where, and in which order."""

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as MappingABC
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from marchproxy.model.protocol import Transport
from marchproxy.policy.audit import let_through
from marchproxy.policy.order import exchange, merge
from marchproxy.policy.plan import Finding, Listener, ListenerKey, Rule
from marchproxy.policy.restrictions import (
    NO_LIMITS,
    Limits,
    Restriction,
    Restrictions,
    Scope,
    excess_findings,
)
from marchproxy.policy.rules import Part, Placed


class Place(NamedTuple):
    """An address and port that some mapping listens on."""

    opening: tuple[Rule, ...] = ()
    """In first-match order, as `joining`; without one there is no listener."""
    joining: tuple[Rule, ...] = ()
    limits: Limits = NO_LIMITS
    listener: Listener | None = None
    asks: bool = False
    """Whether some of its rules let nobody in before they have been told something."""


type Places = MappingABC[ListenerKey, Place]

_NOTHING = Place()


def update_places(
    before: Places,
    gone: Sequence[Part],
    came: Sequence[Part],
    restrictions: Restrictions,
    audited: AbstractSet[str],
    *,
    anew: bool,
) -> Places:
    """The places in order, by key, without the parts that are gone and with those that came.

    Only places that lose or gain a rule are built. `audited` are the clusters that let through what nothing
    matches. `anew`: they, or the restrictions, are not those of before: every listener has to be looked at.
    """
    closed, opened = _by_key(part.rules for part in gone), _by_key(part.rules for part in came)
    left, joined = _by_key(part.joining for part in gone), _by_key(part.joining for part in came)
    touched = closed.keys() | opened.keys() | left.keys() | joined.keys()
    places = dict(before)
    for key in touched | places.keys() if anew else touched:
        place = places.get(key, _NOTHING)
        opening = exchange(place.opening, closed.get(key, ()), opened.get(key, ()))
        joining = exchange(place.joining, left.get(key, ()), joined.get(key, ()))
        if opening or joining:
            places[key] = _build(key, opening, joining, restrictions, audited, place.listener)
        else:
            del places[key]
    return dict(sorted(places.items())) if places.keys() != before.keys() else places


def meet(places: Places, restrictions: Restrictions) -> dict[Restriction, list[Finding]]:
    """The restrictions that meet a listener, and what there is to say about them."""
    if not restrictions.every:
        return {}
    alike: dict[int, tuple[Scope, ...]] = {}
    beyond: dict[Scope, list[tuple[Listener, Rule]]] = {}
    for place in places.values():
        limits = place.limits
        alike[id(limits.scopes)] = limits.scopes
        for scope, rule in limits.excess:
            if place.listener is not None:
                beyond.setdefault(scope, []).append((place.listener, rule))
    met = {each: scope for scopes in alike.values() for scope in scopes for each in scope.restrictions}
    return {
        each: list(excess_findings(each, beyond.get(met[each], ())))
        for each in restrictions.every
        if each in met
    }


def transport_of(key: ListenerKey) -> Transport:
    """What the listener with that key speaks."""
    return Transport.TCP if key.transport == Transport.TCP.number else Transport.UDP


def _by_key(contributions: Iterable[tuple[Placed, ...]]) -> dict[ListenerKey, list[Rule]]:
    found: dict[ListenerKey, list[Rule]] = {}
    for placed in contributions:
        for key, rule in placed:
            found.setdefault(key, []).append(rule)
    return found


def _build(
    key: ListenerKey,
    opening: tuple[Rule, ...],
    joining: tuple[Rule, ...],
    restrictions: Restrictions,
    audited: AbstractSet[str],
    held: Listener | None,
) -> Place:
    """The place with its listener: `held` itself, if that has the same rules."""
    if not opening:
        return Place(opening, joining)
    limits = restrictions.at(key.transport, opening) if restrictions.every else NO_LIMITS
    rules = merge(merge(opening, joining), limits.rules) if joining or limits.rules else opening
    if audited or any(rule.audit for rule in rules):
        rules = let_through(rules, audited)
    if held is None or held.rules != rules:
        address = IPv4Address(key.address) if key.version == 4 else IPv6Address(key.address)
        held = Listener(address, key.port, transport_of(key), rules)
    # Those that join, too: whether requests are read is asked of all rules of a listener.
    asks = transport_of(key) is Transport.TCP and any(rule.is_admitted for rule in (*opening, *joining))
    return Place(opening, joining, limits, held, asks)
