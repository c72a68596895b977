"""Mappings without a listen address: traffic that passes through the appliance to where it asked for."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from marchproxy.model.entities import Action, Mapping
from marchproxy.model.ports import PortRange, Ports
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.model.snapshot import Snapshot
from marchproxy.policy.directory import EVERYONE, Audience, Directory, Referents, Target
from marchproxy.policy.order import exchange
from marchproxy.policy.plan import ICMP, LAST_PRIORITY, Match, TransitRule, protocol_number
from marchproxy.policy.refusals import Refusal

_EVERYTHING = tuple(Match(number) for number in sorted({ICMP, *(each.number for each in Transport)}))


class Transit(NamedTuple):
    """What a mapping comes to."""

    rules: tuple[TransitRule, ...] = ()
    destinations: tuple[str, ...] = ()
    """Every service that the rules name as one: the same tuple where mappings name the same."""


def compile_transit(
    name: str,
    mapping: Mapping,
    audiences: Sequence[Audience],
    destinations: Referents,
    directory: Directory,
    refusal: Refusal | None,
    own: tuple[str, ...] = (),
    *,
    audit: bool,
) -> Transit:
    """The rules of a mapping that does not listen, in first-match order; none where nothing can match.

    `name` is qualified; `audiences` are the mapping's sources; `refusal` is what it says itself; with `audit`
    what it refuses is let through; `own` are the sources that have a credential. A mapping to `all` includes
    services that want a credential: what goes to them is refused before the rest is allowed.
    """
    targets = _targets(mapping, destinations, directory, split=refusal is None)
    sni = mapping.sni_missing if mapping.sni and mapping.action is Action.ALLOW else None
    free = Reason.FORWARDED if sni is None else Reason.SNI_MISSING
    reasons = (refusal.reason,) * 2 if refusal else (free, Reason.AUTH_MISSING)
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
            audit=audit and (refusal is not None or target.locked or sni is not None),
            credentials=refusal.credentials if refusal else _opening(own, target),
            grace=mapping.grace,
            sni=sni,
        )
        for sources, excluded in audiences
        if sources
        for target in targets
    ]
    if not rules:
        return Transit()
    locked = () if refusal else directory.locked
    named = locked if destinations.everyone else directory.named_by(destinations)
    return Transit(tuple(rules), named)


class Routes(NamedTuple):
    """The transit rules of a plan."""

    mapped: tuple[TransitRule, ...] = ()
    """Those of mappings, in first-match order."""
    audited: tuple[TransitRule, ...] = ()
    """What audit lets through behind them."""
    every: tuple[TransitRule, ...] = ()


def update_routes(
    before: Routes,
    lost: Iterable[TransitRule],
    gained: Iterable[TransitRule],
    audited: Iterable[TransitRule],
) -> Routes:
    """`before` without `lost`, with `gained`, and with these rules of audit.

    What is equal to what was there is the very object that was there.
    """
    gone, came = ({id(rule): rule for rule in rules} for rules in (lost, gained))
    staying = gone.keys() & came.keys()
    mapped = exchange(
        before.mapped,
        [rule for number, rule in gone.items() if number not in staying],
        [rule for number, rule in came.items() if number not in staying],
    )
    tail = tuple([next((held for held in before.audited if held == rule), rule) for rule in audited])
    if tail == before.audited:
        tail = before.audited
    if mapped is before.mapped and tail is before.audited:
        return before
    return Routes(mapped, tail, (*mapped, *tail) if tail else mapped)


def audit_rules(snapshot: Snapshot, directories: Iterable[Directory]) -> Iterator[TransitRule]:
    """What no mapping matches, and audit lets through: everything, or what audited clusters take part in."""
    if snapshot.settings.audit:
        yield _audited(EVERYONE, EVERYONE)
        return
    for cluster, directory in zip(snapshot.clusters, directories, strict=True):
        if cluster.audit and directory.names:
            yield _audited(directory.names, EVERYONE)
            yield _audited(EVERYONE, directory.names)


def _audited(sources: tuple[str, ...], destinations: tuple[str, ...]) -> TransitRule:
    return TransitRule(
        mapping="",
        priority=LAST_PRIORITY,
        sources=sources,
        excluded=(),
        destinations=destinations,
        excluded_destinations=(),
        matches=_EVERYTHING,
        reason=Reason.NO_MAPPING,
        audit=True,
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


def _opening(own: tuple[str, ...], target: Target) -> tuple[str, ...]:
    if not target.locked:
        return ()
    return tuple(sorted({*own, *target.included})) if own else target.included


def _matches(mapping: Mapping, port: int | None) -> tuple[Match, ...]:
    ports: Ports = mapping.ports or (() if port is None else (PortRange(port, port),))
    numbers = sorted({protocol_number(protocol.transport) for protocol in mapping.protocols})
    return tuple([Match(number, () if number == ICMP else ports) for number in numbers])
