"""Audit at listeners: what would be refused is reported and goes to where others may go."""

from collections.abc import Set as AbstractSet
from dataclasses import replace

from marchproxy.model.names import cluster_of
from marchproxy.model.reason import Reason
from marchproxy.policy.directory import EVERYONE
from marchproxy.policy.plan import LAST_PRIORITY, Rule


def let_through(rules: tuple[Rule, ...], audited: AbstractSet[str]) -> tuple[Rule, ...]:
    """The rules of a listener, which are in first-match order, with a way for what audit lets through.

    A rule that denies takes the backends of the next later rule that allows; without one it goes on refusing,
    for there is nowhere to go. `audited` are the clusters that let through what nothing matches: everyone is
    then sent where the last rule of such a cluster leads that allows.

    A rule whose backends are all down or drained is such a way only where there is no other: nothing new goes
    there, but what runs is still let through.
    """
    done: list[Rule] = []
    way: Rule | None = None
    for rule in reversed(rules):
        done.append(_sent(rule, way) if rule.audit and not (rule.pool and rule.pool.table) else rule)
        way = rule if _leads(rule) or (way is None and _led(rule)) else way
    done.reverse()
    return (*done, *_last(rules, audited))


def _leads(rule: Rule) -> bool:
    return rule.reason is Reason.FORWARDED and rule.pool is not None


def _led(rule: Rule) -> bool:
    """It would, had its backends not all gone."""
    return rule.reason is Reason.NO_BACKEND and rule.pool is not None


def _sent(rule: Rule, way: Rule | None) -> Rule:
    if way is None:
        return replace(rule, audit=False)
    return replace(
        rule,
        pool=way.pool,
        balance=way.balance,
        tls=rule.tls or way.tls,
        send_proxy=way.send_proxy,
        actions=way.actions,
    )


def _last(rules: tuple[Rule, ...], audited: AbstractSet[str]) -> tuple[Rule, ...]:
    """The rule for everyone behind all others, unless one of these is for everyone already."""
    if any(rule.sources == EVERYONE and not (rule.excluded or rule.is_routed) for rule in rules):
        return ()
    own = [rule for rule in reversed(rules) if cluster_of(rule.mapping) in audited]
    for rule in (*filter(_leads, own), *filter(_led, own)):
        if rule.pool is not None:
            last = replace(
                rule,
                mapping="",
                priority=LAST_PRIORITY,
                sources=EVERYONE,
                excluded=(),
                reason=Reason.NO_MAPPING,
                expires=None,
                audit=True,
                route=None,
            )
            return (last,)
    return ()
