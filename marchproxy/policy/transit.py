"""Mappings without a listen address: traffic that passes through the appliance to where it asked for."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from marchproxy.model.entities import Mapping
from marchproxy.model.ports import PortRange, Ports
from marchproxy.model.reason import Reason
from marchproxy.policy.directory import EVERYONE, Audience, Directory, Referents, Target
from marchproxy.policy.order import exchange
from marchproxy.policy.plan import ICMP, Match, TransitRule, protocol_number
from marchproxy.policy.refusals import Refusal


class Transit(NamedTuple):
    """What a mapping comes to."""

    rules: tuple[TransitRule, ...] = ()
    destinations: tuple[str, ...] = ()
    """Every service that the rules name as one: the same tuple where mappings name the same."""
    locked: tuple[str, ...] = ()
    """Those that are refused, because they want a credential."""


def compile_transit(
    name: str,
    mapping: Mapping,
    audiences: Sequence[Audience],
    destinations: Referents,
    directory: Directory,
    refusal: Refusal | None,
) -> Transit:
    """The rules of a mapping that does not listen, in first-match order; none where nothing can match.

    `name` is qualified; `audiences` are the mapping's sources; `refusal` is what it says itself. A mapping to
    `all` includes services that want a credential: what goes to them is refused before the rest is allowed.
    """
    targets = _targets(mapping, destinations, directory, split=refusal is None)
    reasons = (refusal.reason,) * 2 if refusal else (Reason.FORWARDED, Reason.AUTH_MISSING)
    rules = [
        TransitRule(
            mapping=name,
            priority=mapping.priority,
            sources=sources,
            excluded=excluded,
            destinations=target.included,
            excluded_destinations=target.excluded,
            matches=_matches(mapping, target.port),
            reason=reasons[target.locked],
            expires=mapping.expires,
            action=mapping.action,
        )
        for sources, excluded in audiences
        if sources
        for target in targets
    ]
    if not rules:
        return Transit()
    locked = directory.locked if destinations.everyone else _locked(targets)
    if refusal:
        locked = ()
    named = locked if destinations.everyone else directory.named_by(destinations)
    return Transit(tuple(rules), named, locked)


def update_transit(
    held: tuple[TransitRule, ...], lost: Iterable[TransitRule], gained: Iterable[TransitRule]
) -> tuple[TransitRule, ...]:
    """`held`, which is in first-match order, without `lost` and with `gained`.

    The same tuple where these are the same rules.
    """
    gone, came = ({id(rule): rule for rule in rules} for rules in (lost, gained))
    staying = gone.keys() & came.keys()
    return exchange(
        held,
        [rule for number, rule in gone.items() if number not in staying],
        [rule for number, rule in came.items() if number not in staying],
    )


def _targets(
    mapping: Mapping, destinations: Referents, directory: Directory, *, split: bool
) -> tuple[Target, ...]:
    """In first-match order: what wants a credential first, because an address may be in two services.

    `split`: whether `all` has to be told apart so.
    """
    if destinations.everyone:
        locked = (Target(directory.locked, locked=True),) if split and directory.locked else ()
        return (*locked, Target(EVERYONE))
    external = (Target(EVERYONE, directory.names),) if destinations.external else ()
    return (*external, *destinations.targets(by_port=not mapping.ports))


def _locked(targets: Iterable[Target]) -> tuple[str, ...]:
    return tuple([service for target in targets if target.locked for service in target.included])


def _matches(mapping: Mapping, port: int | None) -> tuple[Match, ...]:
    ports: Ports = mapping.ports or (() if port is None else (PortRange(port, port),))
    numbers = sorted({protocol_number(protocol.transport) for protocol in mapping.protocols})
    return tuple([Match(number, () if number == ICMP else ports) for number in numbers])
