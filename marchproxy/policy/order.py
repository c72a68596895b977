"""Rules in first-match order, and how a few come and go among many."""

from bisect import bisect_left, insort
from collections.abc import Sequence

from marchproxy.policy.plan import Rule, TransitRule, precedence

FEW = 100
"""Rules that are rather looked up one by one."""


def exchange[R: (Rule, TransitRule)](
    held: tuple[R, ...], lost: Sequence[R], gained: Sequence[R]
) -> tuple[R, ...]:
    """`held`, which is in order, without `lost`, all of which are in it, and with `gained`.

    The same tuple if there are none of either. Rules that are equal in precedence, as one mapping's are, stay
    in the order of `gained`.
    """
    if len(lost) > FEW:
        identities = set(map(id, lost))
        held = tuple([rule for rule in held if id(rule) not in identities])
    elif lost:
        held = _without(held, lost)
    if not gained:
        return held
    return merge(held, sorted(gained, key=precedence) if len(gained) > 1 else gained)


def _without[R: (Rule, TransitRule)](held: tuple[R, ...], lost: Sequence[R]) -> tuple[R, ...]:
    """The same where looking each up costs less than looking at all."""
    staying = list(held)
    for rule in lost:
        place = bisect_left(staying, precedence(rule), key=precedence)
        while staying[place] is not rule:
            place += 1
        del staying[place]
    return tuple(staying)


def merge[R: (Rule, TransitRule)](some: Sequence[R], others: Sequence[R]) -> tuple[R, ...]:
    """Both, each of which is in order. Mostly one into many, where sorting would ask for the keys of all."""
    few, many = (some, others) if len(some) < len(others) else (others, some)
    if not few:
        return tuple(many)
    merged = list(many)
    for rule in few:
        insort(merged, rule, key=precedence)
    return tuple(merged)
