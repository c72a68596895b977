"""What the policy maps are to hold, in the terms of `bpf/marchproxy.h` but without the bank."""

from collections.abc import Iterable, Mapping

from marchproxy.dataplane.kernel import layouts

type Place = tuple[int, int]
"""A prefix in the 128-bit space that both families share: network address and length."""
type BitsKey = tuple[int, int]
"""Class of sources, and number of a word of rules."""


class Table[K, V]:
    """The entries of one map, and for each bank the keys under which it still differs from them.

    Remembering keys at every change costs little; comparing tables of a hundred thousand entries to find the
    one that changed would cost more than all the rest.
    """

    __slots__ = ("entries", "pending")

    def __init__(self) -> None:
        self.entries: dict[K, V] = {}
        self.pending: tuple[set[K], ...] = tuple(set() for _ in range(layouts.BANKS))

    def __setitem__(self, key: K, value: V) -> None:
        self.entries[key] = value
        for keys in self.pending:
            keys.add(key)

    def __delitem__(self, key: K) -> None:
        del self.entries[key]
        for keys in self.pending:
            keys.add(key)

    def update(self, entries: Mapping[K, V]) -> None:
        """Set many."""
        self.entries.update(entries)
        for keys in self.pending:
            keys.update(entries)

    def remove(self, keys: Iterable[K]) -> None:
        """Delete many."""
        for key in keys:
            del self[key]


class Tables:
    """The maps that make up a policy. Keys and values are bytes where they are packed when they arise."""

    __slots__ = (
        *("backends", "bits", "listeners", "pools", "rules", "sources"),
        *("limit_generations", "limit_prefixes", "limit_sets", "limits"),
    )

    def __init__(self) -> None:
        self.listeners: Table[bytes, bytes] = Table()
        """`mp_listener_key` without its bank, to `mp_listener`."""
        self.rules: Table[int, bytes] = Table()
        self.pools: Table[int, bytes] = Table()
        self.backends: Table[int, bytes] = Table()
        self.sources: Table[Place, int] = Table()
        """To classes."""
        self.bits: Table[BitsKey, int] = Table()
        self.limits: Table[int, bytes] = Table()
        """By slot."""
        self.limit_sets: Table[int, bytes] = Table()
        self.limit_prefixes: Table[Place, int] = Table()
        """To sets of limits."""
        self.limit_generations: Table[int, int] = Table()
        """One number, which changes with sets and prefixes; 0: there are no limits."""
