"""Writing policy into the kernel, whole or not at all.

Every policy map holds two banks. The programs read the one that the settings name; the other, which nobody
reads, is brought up to date by writing the keys that have changed, and then becomes the one that is read. A
packet therefore sees the old policy or the new one, never a mixture, and a change costs its own size.
"""

import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.entries import BitsKey, Place, Table, Tables
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.settings import Settings

GRACE = 0.1
"""Seconds after which no packet still reads the bank that it found in the settings: programs run for µs."""
_STRETCH = 4096
"""Entries of an array that are written in one call."""
_ADDRESS_KEY_SIZE = 21
"""The trie's key leaves the tail padding of the struct out."""


@dataclass(frozen=True, slots=True)
class _Packing[K, V]:
    """How the entries of one map look in a bank."""

    key: Callable[[int, K], bytes]
    """Of a bank and a key."""
    value: Callable[[V], bytes]
    bank_of: Callable[[bytes], int] | None = None
    """Of a packed key. None for an array: its entries cannot be removed, and nothing points at old ones."""
    blank: int = 0
    """Entries of an array whose old ones would be believed, per bank: what is not there is made zeros."""


class Banks:
    """The two banks of the policy maps."""

    def __init__(self, maps: Mapping[str, Map], settings: Settings) -> None:
        self._maps = maps
        self._settings = settings
        self._ports: list[array[int] | None] = [None] * layouts.BANKS
        """The classes of ports that a bank holds."""
        self._held: list[Tables | None] = [None] * layouts.BANKS
        """Whose entries a bank holds, but for pending ones; None: an earlier daemon's, or a mixture."""
        self._switched = 0.0

    def switch(self, tables: Tables, revision: int) -> None:
        """Make `tables` the policy that holds. Raises `KernelError` and leaves the old one in force."""
        standby = 1 - self._settings.bank
        self._bring_up(standby, tables)
        limiting = bool(tables.limits.entries)
        self._settings.change(bank=standby, revision=revision, limiting=limiting)
        self._switched = time.monotonic()

    def follow(self) -> None:
        """Bring the bank that is no longer read up to date too: the next switch then writes what is new.

        Does nothing while packets may still be reading it.
        """
        current = self._held[self._settings.bank]
        if current and time.monotonic() - self._switched > GRACE:
            self._bring_up(1 - self._settings.bank, current)

    def _bring_up(self, bank: int, tables: Tables) -> None:
        whole = self._held[bank] is not tables
        self._held[bank] = None
        self._write("backends", _BACKENDS, tables.backends, bank, whole)
        self._write("pools", _POOLS, tables.pools, bank, whole)
        self._write("rules", _RULES, tables.rules, bank, whole)
        self._write("address_classes", _ADDRESSES, tables.address_classes, bank, whole)
        self._write("class_lines", _LINES, tables.class_lines, bank, whole)
        self._write("class_pages", _PAGES, tables.class_pages, bank, whole)
        self._write("source_bits", _BITS, tables.bits, bank, whole)
        self._write("transit_rules", _RULES, tables.transit_rules, bank, whole)
        self._write("transit_bits", _BITS, tables.transit_bits, bank, whole)
        self._write("transit_digests", _DIGESTS, tables.transit_digests, bank, whole)
        self._write("transit_extents", _EXTENTS, tables.transit_extents, bank, whole)
        self._write_ports(tables.port_classes, bank)
        self._write("listeners", _LISTENERS, tables.listeners, bank, whole)
        self._write("limits", _LIMITS, tables.limits, bank, whole)
        self._write("limit_sets", _LIMIT_SETS, tables.limit_sets, bank, whole)
        self._write("limit_prefixes", _ADDRESSES, tables.limit_prefixes, bank, whole)
        self._write("limit_generations", _LIMIT_GENERATIONS, tables.limit_generations, bank, whole)
        self._held[bank] = tables

    def _write[K, V](
        self, name: str, packing: _Packing[K, V], table: Table[K, V], bank: int, whole: bool
    ) -> None:
        target, entries, pending = self._maps[name], table.entries, table.pending[bank]
        if whole:
            pending.update(entries)
        if packing.bank_of:
            if whole:
                held = target.keys()
                target.delete_many([key for key in held if packing.bank_of(key) == bank])
            target.delete_many([packing.key(bank, key) for key in pending if key not in entries])
        if packing.blank:
            nothing = bytes(target.value_size)
            for first in range(0, packing.blank if whole else 0, _STRETCH):
                target.update_run(bank * packing.blank + first, nothing * _STRETCH)
            target.update_many([(packing.key(bank, key), nothing) for key in pending if key not in entries])
        target.update_many(
            [(packing.key(bank, key), packing.value(entries[key])) for key in pending if key in entries]
        )
        pending.clear()

    def _write_ports(self, classes: "array[int]", bank: int) -> None:
        """Write the stretches that differ."""
        held = self._ports[bank]
        if held is classes:
            return
        self._ports[bank] = None
        target, base = self._maps["port_classes"], bank * layouts.PORT_CLASSES
        for first in range(0, layouts.PORT_CLASSES, _STRETCH):
            stretch = classes[first : first + _STRETCH]
            if held is None or held[first : first + _STRETCH] != stretch:
                target.update_run(base + first, stretch.tobytes())
        self._ports[bank] = classes


def _index_in(size: int) -> Callable[[int, int], bytes]:
    """The key of an array whose banks are `size` entries long."""
    return lambda bank, number: layouts.U32.pack(bank * size + number)


def _address_key(bank: int, place: Place) -> bytes:
    address, length = place
    packed = layouts.ADDRESS_KEY.struct.pack(8 + length, bank, address.to_bytes(16))
    return packed[:_ADDRESS_KEY_SIZE]


def _page_key(bank: int, page: int) -> bytes:
    return (page << 8 | bank).to_bytes(16)


def _listener_key(bank: int, key: bytes) -> bytes:
    return key + bytes((bank,))


def _bits_key(bank: int, place: BitsKey) -> bytes:
    source_class, word = place
    return layouts.BITS_KEY.struct.pack(source_class | bank << layouts.CLASS_BANK_SHIFT, word)


def _bits_bank(key: bytes) -> int:
    source_class, _ = layouts.BITS_KEY.struct.unpack(key)
    return int(source_class) >> layouts.CLASS_BANK_SHIFT


_BACKENDS = _Packing(_index_in(layouts.BACKENDS), bytes)
_POOLS = _Packing(_index_in(layouts.POOL_SLOTS), bytes)
_RULES = _Packing(_index_in(layouts.RULES), bytes)
_ADDRESSES = _Packing(_address_key, layouts.U32.pack, lambda key: key[4])
_PAGES = _Packing(_page_key, bytes, lambda key: key[-1])
_LINES = _Packing(_index_in(layouts.CLASS_LINES), bytes, blank=layouts.CLASS_LINES)
_DIGESTS = _Packing(_index_in(layouts.DIMENSIONS * layouts.CLASSES), bytes)
_EXTENTS = _Packing(_index_in(1), layouts.U32.pack)
_BITS = _Packing(_bits_key, layouts.U64.pack, _bits_bank)
_LISTENERS = _Packing(_listener_key, bytes, lambda key: key[-1])
_LIMITS = _Packing(_index_in(layouts.LIMITS), bytes)
_LIMIT_SETS = _Packing(_index_in(layouts.LIMIT_SETS), bytes)
_LIMIT_GENERATIONS = _Packing(_index_in(1), layouts.U32.pack)
