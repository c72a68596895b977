"""What the policy maps are to hold, in the terms of `bpf/marchproxy.h` but without the bank."""

from array import array
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
        *(
            "address_classes",
            "backends",
            "bits",
            "class_lines",
            "class_pages",
            "listeners",
            "pools",
            "port_classes",
            "rules",
        ),
        *("limit_generations", "limit_prefixes", "limit_sets", "limits"),
        *("transit_bits", "transit_digests", "transit_extents", "transit_rules"),
    )

    def __init__(self) -> None:
        self.listeners: Table[bytes, bytes] = Table()
        """`mp_listener_key` without its bank, to `mp_listener`."""
        self.rules: Table[int, bytes] = Table()
        self.pools: Table[int, bytes] = Table()
        self.backends: Table[int, bytes] = Table()
        self.address_classes: Table[Place, int] = Table()
        self.class_lines: Table[int, bytes] = Table()
        """By the hash of the page: `mp_class_line`."""
        self.class_pages: Table[int, bytes] = Table()
        """Of pages that have no line: by the first 120 bits of their addresses, `mp_page`."""
        self.bits: Table[BitsKey, int] = Table()
        """Of listeners' rules."""
        self.transit_rules: Table[int, bytes] = Table()
        self.transit_bits: Table[BitsKey, int] = Table()
        """Classes carry their dimension here, as `tagged` does it."""
        self.transit_digests: Table[int, bytes] = Table()
        """By dimension and class; zeros where nothing is left of one."""
        self.transit_extents: Table[int, int] = Table()
        """One number: words of transit rules in use."""
        self.port_classes = array("I", bytes(4 * layouts.PORT_CLASSES))
        """Replaced, never changed: what a bank holds is compared with it."""
        self.limits: Table[int, bytes] = Table()
        """By slot."""
        self.limit_sets: Table[int, bytes] = Table()
        self.limit_prefixes: Table[Place, int] = Table()
        """To sets of limits."""
        self.limit_generations: Table[int, int] = Table()
        """One number, which changes with sets and prefixes; 0: there are no limits."""


def tagged(number: int, dimension: int) -> int:
    """A class of one dimension of transit traffic."""
    return number | dimension << layouts.CLASS_DIMENSION_SHIFT
