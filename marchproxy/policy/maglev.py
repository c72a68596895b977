"""Maglev consistent hashing (Eisenbud et al., NSDI 2016, section 3.4), with weights.

Each backend prefers the slots of the table in an order of its own, made from a hash of its key alone.
Backends take turns, and each takes the first slot of its order that is still free. So shares are even to the
slot, and when a backend goes, its slots are shared out while nearly all others stay as they were.
"""

import hashlib
from collections.abc import Sequence
from itertools import cycle, islice
from math import gcd

TABLE_SIZES = ((103, 4), (509, 10), (4093, 81), (65537, None))
"""Sizes, and how many times the weight of the lightest backend all of them may have together.

Primes, so that every step through a table visits each slot. Shares are true to 3 % with the smallest, and to
2 % with the others. Few and far apart, because a pool that crosses from one size to the next (at 5, 11 and 82
equal backends) spreads all its *new* flows anew. The smallest is for the many pools of a few addresses: ten
thousand of them are a million slots in the kernel, where 509 each would be five."""

_ONLY = (0,)


def build_table(backends: Sequence[tuple[bytes, int]]) -> tuple[int, ...]:
    """The table for backends given as (key, weight): indexes into `backends`, in proportion to the weights.

    Keys must differ, weights be 1 or more. The order of `backends` changes the indexes, not who owns which
    slot. No backend: no table. One: a table of one slot.
    """
    if len(backends) < 2:
        return _ONLY[: len(backends)]
    order = sorted(range(len(backends)), key=lambda index: backends[index][0])
    weights = [backends[index][1] for index in order]
    size = table_size(weights)
    positions, steps = zip(*(_preference(backends[index][0], size) for index in order), strict=True)
    return _fill(size, order, list(positions), steps, _turns(weights, size))


def turns_table(backends: Sequence[tuple[bytes, int]]) -> tuple[int, ...]:
    """One round of turns for the same: each backend as often as its weight says, evenly spread.

    A round of more turns than the largest table has slots is cut off there.
    """
    largest = TABLE_SIZES[-1][0]
    weights = [weight for _, weight in backends]
    return tuple(_turns(weights, largest)[:largest]) if backends else ()


def table_size(weights: Sequence[int]) -> int:
    """The smallest size that is true enough for the lightest backend."""
    total, lightest = sum(weights), min(weights)
    return next(size for size, most in TABLE_SIZES if most is None or total <= most * lightest)


def _preference(key: bytes, size: int) -> tuple[int, int]:
    """The slot a backend likes best, and the step to the next best: the paper's offset and skip."""
    digest = hashlib.blake2b(key, digest_size=16).digest()
    return int.from_bytes(digest[:8]) % size, int.from_bytes(digest[8:]) % (size - 1) + 1


def _turns(weights: Sequence[int], size: int) -> list[int]:
    """Who takes a slot when, for one round: heavier backends more often, and evenly spread over the round.

    Spread, because the last round is cut off where the table is full, and must be fair wherever that is. A
    round longer than the table is cut off here.
    """
    common = gcd(*weights)
    total = sum(weights)
    moments = [
        ((2 * turn + 1) * common / weight, who)
        for who, weight in enumerate(weights)
        for turn in range(min(weight // common, weight * size // total + 2))
    ]
    return [who for _, who in sorted(moments)]


def _fill(
    size: int, order: Sequence[int], positions: list[int], steps: Sequence[int], turns: Sequence[int]
) -> tuple[int, ...]:
    table = [0] * size
    taken = bytearray(size)
    for who in islice(cycle(turns), size):
        slot = positions[who]
        step = steps[who]
        while taken[slot]:
            slot += step
            if slot >= size:
                slot -= size
        taken[slot] = True
        positions[who] = slot
        table[slot] = order[who]
    return tuple(table)
