"""Rules in first-match order, and how a few come and go among many."""

from bisect import insort
from collections.abc import Sequence

from marchproxy.policy.plan import Rule, TransitRule, precedence


def exchange[R: (Rule, TransitRule)](
    held: tuple[R, ...], lost: Sequence[R], gained: Sequence[R]
) -> tuple[R, ...]:
    """`held`, which is in order, without `lost` and with `gained`; itself if there are none of either.

    Rules of one mapping that are equal in precedence stay in the order of `gained`.
    """
    if lost:
        identities = set(map(id, lost))
        held = tuple([rule for rule in held if id(rule) not in identities])
    if not gained:
        return held
    return merge(held, sorted(gained, key=precedence) if len(gained) > 1 else gained)


def merge[R: (Rule, TransitRule)](some: Sequence[R], others: Sequence[R]) -> tuple[R, ...]:
    """Both, each of which is in order. Mostly one into many, where sorting would ask for the keys of all."""
    few, many = (some, others) if len(some) < len(others) else (others, some)
    if not few:
        return tuple(many)
    merged = list(many)
    for rule in few:
        insort(merged, rule, key=precedence)
    return tuple(merged)
