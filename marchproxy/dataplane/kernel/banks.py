"""Writing policy into the kernel, whole or not at all.

Every policy table exists twice. The programs read the bank that the settings name; the other one, which nobody reads, is brought up to
date by writing the difference between what it holds and the new tables, and then becomes the one that is read. A packet
therefore sees the old policy or the new one, never a mixture, and a change costs its own size.
"""

from collections.abc import Iterable, Mapping, Sequence

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.settings import Settings
from marchproxy.dataplane.kernel.tables import Tables

POLICY_MAPS = ("listeners", "rules", "pools", "backends", "sources", "source_bits")


class Banks:
    """The two banks of the policy maps."""

    def __init__(self, maps: Mapping[str, Map], settings: Settings) -> None:
        self._maps = maps
        self._settings = settings
        self._held: list[Tables | None] = [None] * layouts.BANKS

    def switch(self, tables: Tables, revision: int) -> None:
        """Make `tables` the policy that holds. Raises `KernelError` and leaves the old one where something does not fit."""
        standby = 1 - self._settings.bank
        held = self._held[standby]
        self._held[standby] = None
        if held is None:
            self._clear(standby)
            held = Tables()
        self._write(standby, held, tables)
        self._held[standby] = tables
        self._settings.change(bank=standby, revision=revision)

    def _write(self, bank: int, held: Tables, wanted: Tables) -> None:
        self._write_array("rules", bank * layouts.RULES, held.rules, wanted.rules)
        self._write_array("pools", bank * layouts.POOL_SLOTS, held.pools, wanted.pools)
        self._write_array("backends", bank * layouts.BACKENDS, held.backends, wanted.backends)
        self._write_hash("listeners", _Listeners(bank), held.listeners, wanted.listeners)
        self._write_hash("sources", _Sources(bank), held.sources, wanted.sources)
        self._write_hash("source_bits", _Bits(bank), held.bits, wanted.bits)

    def _write_array(self, name: str, base: int, held: Mapping[int, bytes], wanted: Mapping[int, bytes]) -> None:
        """Entries that are no longer named stay: nothing points at them."""
        pack = layouts.U32.pack
        changed = wanted.items() - held.items()
        self._maps[name].update_many([(pack(base + number), value) for number, value in changed])

    def _write_hash[K, V](self, name: str, code: "_Code[K, V]", held: Mapping[K, V], wanted: Mapping[K, V]) -> None:
        gone = held.keys() - wanted.keys()
        changed = wanted.items() - held.items()
        self._maps[name].delete_many([code.key(key) for key in gone])
        self._maps[name].update_many([(code.key(key), code.value(value)) for key, value in changed])

    def _clear(self, bank: int) -> None:
        """Take out what an earlier daemon left in the bank."""
        for name, code in (("listeners", _Listeners(bank)), ("sources", _Sources(bank)), ("source_bits", _Bits(bank))):
            self._maps[name].delete_many(list(code.of_bank(self._maps[name].keys())))


class _Code[K, V]:
    """How a table's keys and values are packed for one bank."""

    def __init__(self, bank: int) -> None:
        self.bank = bank

    def key(self, key: K) -> bytes:
        raise NotImplementedError

    def value(self, value: V) -> bytes:
        raise NotImplementedError

    def of_bank(self, keys: Iterable[bytes]) -> Sequence[bytes]:
        raise NotImplementedError


class _Listeners(_Code[bytes, bytes]):
    def key(self, key: bytes) -> bytes:
        return key + bytes((self.bank,))

    def value(self, value: bytes) -> bytes:
        return value

    def of_bank(self, keys: Iterable[bytes]) -> Sequence[bytes]:
        return [key for key in keys if key[-1] == self.bank]


class _Sources(_Code[tuple[int, bytes], int]):
    KEY_SIZE = 21
    """The trie's key leaves the struct's tail padding out."""

    def key(self, key: tuple[int, bytes]) -> bytes:
        length, address = key
        return layouts.SOURCE_KEY.struct.pack(8 + length, self.bank, address)[: self.KEY_SIZE]

    def value(self, value: int) -> bytes:
        return layouts.U32.pack(value)

    def of_bank(self, keys: Iterable[bytes]) -> Sequence[bytes]:
        return [key for key in keys if key[4] == self.bank]


class _Bits(_Code[tuple[int, int], int]):
    def key(self, key: tuple[int, int]) -> bytes:
        source_class, word = key
        return layouts.BITS_KEY.struct.pack(source_class | self.bank << layouts.CLASS_BANK_SHIFT, word)

    def value(self, value: int) -> bytes:
        return layouts.U64.pack(value)

    def of_bank(self, keys: Iterable[bytes]) -> Sequence[bytes]:
        shift = layouts.CLASS_BANK_SHIFT
        return [key for key in keys if layouts.BITS_KEY.struct.unpack(key)[0] >> shift == self.bank]
