"""Maps without a kernel, for what is about the entries and not about BPF."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import batched

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.errors import MapFull
from marchproxy.dataplane.kernel.maps import BATCH, Map


class FakeMap(Map):
    """A hash map in memory."""

    def __init__(self, name: str, *, value_size: int = 0, max_entries: int = 1 << 20) -> None:
        self.fd = -1
        self.name = name
        self.value_size = value_size
        self.max_entries = max_entries
        self.entries: dict[bytes, bytes] = {}
        self.read = 0
        """Entries handed out by `items`."""
        self.written = 0
        """Entries written or deleted."""

    def get(self, key: bytes) -> bytes | None:
        return self.entries.get(key)

    def has(self, key: bytes) -> bool:
        return key in self.entries

    def set(self, key: bytes, value: bytes, flags: int = 0) -> None:
        self.update_many([(key, value)])

    def delete(self, key: bytes) -> bool:
        return self.delete_many([key]) == 1

    def keys(self) -> Iterator[bytes]:
        return iter(list(self.entries))

    def items(self, batch: int = BATCH) -> Iterator[tuple[bytes, bytes]]:
        for entry in list(self.entries.items()):
            self.read += 1
            yield entry

    def batches(self, batch: int = BATCH) -> Iterator[tuple[memoryview, memoryview]]:
        for some in batched(self.items(), batch):
            keys, values = zip(*some, strict=True)
            yield memoryview(b"".join(keys)), memoryview(b"".join(values))

    def update_many(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        for done, (key, value) in enumerate(entries):
            if key not in self.entries and len(self.entries) >= self.max_entries:
                raise MapFull(self.name, self.max_entries, written=done, errno=7)
            self.entries[key] = value
            self.written += 1

    def update_run(self, first: int, values: bytes) -> None:
        """Arrays hold zeros where nothing was written, and so does this."""
        nothing = bytes(self.value_size)
        if not self.entries and not any(values):
            return
        for number in range(len(values) // self.value_size):
            key = layouts.U32.pack(first + number)
            value = values[number * self.value_size : (number + 1) * self.value_size]
            if value != self.entries.get(key, nothing):
                self.entries[key] = value
                self.written += 1

    def delete_many(self, keys: Sequence[bytes]) -> int:
        self.written += len(keys)
        return sum(self.entries.pop(key, None) is not None for key in keys)


class FakeArray(FakeMap):
    """All entries are there from the start, and stay."""

    def get(self, key: bytes) -> bytes | None:
        return self.entries.get(key, bytes(self.value_size))

    def update_run(self, first: int, values: bytes) -> None:
        """Arrays hold zeros where nothing was written, and so does this."""
        nothing = bytes(self.value_size)
        if not self.entries and not any(values):
            return
        for number in range(len(values) // self.value_size):
            key = layouts.U32.pack(first + number)
            value = values[number * self.value_size : (number + 1) * self.value_size]
            if value != self.entries.get(key, nothing):
                self.entries[key] = value
                self.written += 1

    def delete_many(self, keys: Sequence[bytes]) -> int:
        raise AssertionError("an array's entries cannot be deleted")


class FakeTrie(FakeMap):
    """Longest-prefix match, as the kernel's: keys are a length in bits and that many bits, and more."""

    def get(self, key: bytes) -> bytes | None:
        matching = [held for held in self.entries if _covers(held, key)]
        return self.entries[max(matching)] if matching else None


def _covers(held: bytes, key: bytes) -> bool:
    (length,) = struct.unpack_from("=I", held)
    skipped = 8 * (len(key) - 4) - length
    return bool(int.from_bytes(held[4:]) >> skipped == int.from_bytes(key[4:]) >> skipped)


def fake_policy_maps() -> Mapping[str, Map]:
    """The maps that `Banks` writes, and the settings."""
    arrays = {
        "class_lines": layouts.CLASS_LINE.size,
        "rules": layouts.RULE.size,
        "pools": layouts.U32.size,
        "backends": layouts.BACKEND.size,
        "port_classes": layouts.U32.size,
        "transit_rules": layouts.TRANSIT_RULE.size,
        "transit_digests": layouts.TRANSIT_DIGEST.size,
        "transit_extents": layouts.U32.size,
        "settings": layouts.SETTINGS.size,
        "limits": layouts.LIMIT.size,
        "limit_sets": layouts.LIMIT_SET.size,
        "limit_generations": layouts.U32.size,
    }
    return {
        **{name: FakeMap(name) for name in ("class_pages", "listeners", "source_bits", "transit_bits")},
        **{name: FakeArray(name, value_size=size) for name, size in arrays.items()},
        **{name: FakeTrie(name) for name in ("address_classes", "limit_prefixes")},
    }


def written(maps: Mapping[str, Map]) -> int:
    """Entries written to, or deleted from, all of them so far."""
    return sum(each.written for each in maps.values() if isinstance(each, FakeMap))


class FakeNames(dict[str, int]):
    """Numbers for mappings."""

    def number(self, name: str) -> int:
        return self.setdefault(name, len(self) + 1)

    def name(self, number: int) -> str:
        return next((name for name, held in self.items() if held == number), "")


class FakeCounts(FakeArray):
    """An array with a value for each of two CPUs."""

    def __init__(self, name: str = "beginnings") -> None:
        super().__init__(name, value_size=8)
        self.cells: dict[bytes, list[bytes]] = {}

    def get_percpu(self, key: bytes) -> list[bytes]:
        return list(self.cells.get(key, [bytes(self.value_size)] * 2))

    def set_percpu(self, key: bytes, values: Sequence[bytes], flags: int = 0) -> None:
        assert list(map(len, values)) == [self.value_size] * 2
        self.cells[key] = list(values)
