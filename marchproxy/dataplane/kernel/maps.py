"""Reading and writing BPF maps: keys and values are bytes, laid out as `layouts` says.

Whole tables go through the batch system calls (kernel 5.6; LPM tries 5.13, per-CPU arrays 5.13), a few
thousand entries per call. Kinds of map without them are walked key by key, with the same result.
"""

import ctypes as ct
import errno
import os
import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import Self

from marchproxy.dataplane.kernel.errors import ENOTSUPP, KernelError, MapFull, NotSupported, refusal
from marchproxy.dataplane.kernel.libbpf import (
    U32,
    BatchOptions,
    MapInfo,
    library,
    object_info,
    possible_cpus,
)
from marchproxy.dataplane.kernel.maptypes import MapType

ANY, NO_EXIST, EXIST = 0, 1, 2
"""Flags of `Map.set`: write in any case; only a new key, else EEXIST; only a known key, else ENOENT."""

BATCH = 4096
"""Entries per system call: large enough to make the call itself cheap, small enough for modest buffers."""

_WITHOUT_BATCH = (ENOTSUPP, errno.EOPNOTSUPP)
_FULL = (errno.E2BIG, errno.ENOSPC)
_PERCPU = frozenset({MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH})
_ARRAYS = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})


class Map:
    """One BPF map, by a file descriptor that belongs to this object.

    Methods may be called from several threads at once. A key or value of the wrong size is a ValueError,
    since the kernel would read past its end; a per-CPU method on a map of one value per key, or the reverse,
    is a TypeError.
    """

    __slots__ = (
        "_look_up",
        "_slot",
        "_stored_size",
        "_unread",
        "fd",
        "flags",
        "key_size",
        "max_entries",
        "name",
        "percpu",
        "type",
        "value_size",
    )

    def __init__(self, fd: int, name: str) -> None:
        """Take over `fd`. `name` is for people: the kernel's own is cut off after 15 characters."""
        self.fd = fd
        self.name = name
        info = self._info()
        self.type = MapType(info.type)
        # Whether an entry has one value for each possible CPU.
        self.percpu = self.type in _PERCPU
        self.key_size = int(info.key_size)
        # Of one value: without the padding to 8 bytes that per-CPU maps have between values.
        self.value_size = int(info.value_size)
        self.max_entries = int(info.max_entries)
        self.flags = int(info.map_flags)
        self._slot = (self.value_size + 7) // 8 * 8 if self.percpu else self.value_size
        self._stored_size = self._slot * possible_cpus() if self.percpu else self.value_size
        self._unread = ct.create_string_buffer(self._stored_size)
        self._look_up = library().bpf_map_lookup_elem

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        self._expect_percpu(False)
        return self._read(key)

    def has(self, key: bytes) -> bool:
        """Whether there is a value of `key`: a third of the time of `get`."""
        if len(key) != self.key_size:
            _expect_size(key, self.key_size, "key")
        code = self._look_up(self.fd, key, self._unread)
        if code in (0, -errno.ENOENT):
            return bool(code == 0)
        raise self._refusal(-code, "read from")

    def get_percpu(self, key: bytes) -> list[bytes]:
        """The values of `key` by CPU number; an empty list where the key is missing."""
        self._expect_percpu(True)
        stored = self._read(key)
        return [] if stored is None else self._split(stored)

    def set(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """Write one entry. MapFull, or KernelError with errno EEXIST or ENOENT as `flags` demand."""
        self._expect_percpu(False)
        self._write(key, value, flags)

    def set_percpu(self, key: bytes, values: Sequence[bytes], flags: int = ANY) -> None:
        """Write one entry: a value for each possible CPU, in order."""
        self._expect_percpu(True)
        _expect_sizes(values, self.value_size, "value")
        self._write(key, b"".join(value.ljust(self._slot, b"\0") for value in values), flags)

    def delete(self, key: bytes) -> bool:
        """Remove one entry; False where there was none."""
        _expect_size(key, self.key_size, "key")
        code = -int(library().bpf_map_delete_elem(self.fd, key))
        if code in (0, errno.ENOENT):
            return code == 0
        raise self._refusal(code, "delete from")

    def keys(self) -> Iterator[bytes]:
        """All keys, as `items`."""
        return (key for key, _ in self._entries(BATCH))

    def items(self, batch: int = BATCH) -> Iterator[tuple[bytes, bytes]]:
        """All entries, read `batch` at a time while others may be writing.

        In hash maps an entry that stays during the whole walk is seen exactly once, whatever happens around
        it. In other kinds, removing the entry at a batch's end makes the kernel start over, and entries are
        seen twice.
        """
        self._expect_percpu(False)
        return self._entries(batch)

    def batches(self, batch: int = BATCH) -> Iterator[tuple[memoryview, memoryview]]:
        """As `items`, each batch as it comes: the keys in a row, and the values in a row."""
        self._expect_percpu(False)
        return self._batches(batch)

    def items_percpu(self, batch: int = BATCH) -> Iterator[tuple[bytes, list[bytes]]]:
        """As `items`, with the values by CPU number."""
        self._expect_percpu(True)
        return ((key, self._split(stored)) for key, stored in self._entries(batch))

    def update_many(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Write entries in their order. MapFull says how many were stored; those stay."""
        self._expect_percpu(False)
        for start in range(0, len(entries), BATCH):
            keys, values = zip(*entries[start : start + BATCH], strict=True)
            _expect_sizes(keys, self.key_size, "key")
            _expect_sizes(values, self.value_size, "value")
            self._write_batch(keys, values, written=start)

    def update_run(self, first: int, values: bytes) -> None:
        """Write consecutive entries of an array: their packed values, from index `first` on."""
        _expect_size(values[len(values) // self.value_size * self.value_size :], 0, "rest")
        numbers = array("I", range(first, first + len(values) // self.value_size))
        count = U32(len(numbers))
        code = -library().bpf_map_update_batch(
            self.fd, numbers.tobytes(), values, ct.byref(count), ct.byref(BatchOptions())
        )
        if code in _WITHOUT_BATCH:
            for at, number in enumerate(numbers):
                value = values[at * self.value_size : (at + 1) * self.value_size]
                self._write(bytes(U32(number)), value, ANY, written=at)
        elif code:
            raise self._write_refusal(code, count.value)

    def delete_many(self, keys: Sequence[bytes]) -> int:
        """Remove entries, ignoring keys that are missing; how many were there."""
        _expect_sizes(keys, self.key_size, "key")
        return sum(self._delete_batch(keys[start : start + BATCH]) for start in range(0, len(keys), BATCH))

    def close(self) -> None:
        """Give the descriptor back; a map that is pinned or used by a program lives on. May be repeated."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Map {self.name} {self.type.name} {self.key_size}+{self.value_size} x {self.max_entries}>"

    def _info(self) -> MapInfo:
        """Closes the descriptor, which is ours by now, where there is no map of a known type behind it."""
        info = MapInfo()
        code = -object_info(self.fd, info)
        if code == 0 and info.type in MapType:
            return info
        self.close()
        if code:
            raise self._refusal(code, "read the type of")
        raise NotSupported(f"map {self.name!r} is of type {info.type}, which is newer than this program")

    def _read(self, key: bytes) -> bytes | None:
        _expect_size(key, self.key_size, "key")
        stored = ct.create_string_buffer(self._stored_size)
        code = -library().bpf_map_lookup_elem(self.fd, key, stored)
        if code == 0:
            return stored.raw
        if code == errno.ENOENT:
            return None
        raise self._refusal(code, "read from")

    def _write(self, key: bytes, stored: bytes, flags: int, *, written: int = 0) -> None:
        _expect_size(key, self.key_size, "key")
        _expect_size(stored, self._stored_size, "value")
        if code := -library().bpf_map_update_elem(self.fd, key, stored, flags):
            raise self._write_refusal(code, written)

    def _write_batch(self, keys: Sequence[bytes], values: Sequence[bytes], *, written: int) -> None:
        count = U32(len(keys))
        code = -library().bpf_map_update_batch(
            self.fd, b"".join(keys), b"".join(values), ct.byref(count), ct.byref(BatchOptions())
        )
        if code in _WITHOUT_BATCH:
            for done, (key, value) in enumerate(zip(keys, values, strict=True), written):
                self._write(key, value, ANY, written=done)
        elif code:
            raise self._write_refusal(code, written + count.value)

    def _delete_batch(self, keys: Sequence[bytes]) -> int:
        joined = ct.create_string_buffer(b"".join(keys), len(keys) * self.key_size)
        position = deleted = 0
        while position < len(keys):
            count = U32(len(keys) - position)
            start = ct.byref(joined, position * self.key_size)
            code = -library().bpf_map_delete_batch(self.fd, start, ct.byref(count), ct.byref(BatchOptions()))
            if code in _WITHOUT_BATCH:
                return deleted + sum(self.delete(key) for key in keys[position:])
            if code not in (0, errno.ENOENT):
                raise self._refusal(code, "delete from")
            deleted += count.value
            # The kernel stops at a key that is missing; the batch goes on behind it.
            position += count.value + (code == errno.ENOENT)
        return deleted

    def _entries(self, batch: int) -> Iterator[tuple[bytes, bytes]]:
        """Keys with their values as stored: those of a per-CPU map in one piece."""
        for keys, values in self._batches(batch):
            yield from zip(_pieces(keys, self.key_size), _pieces(values, self._stored_size), strict=True)

    def _batches(self, batch: int) -> Iterator[tuple[memoryview, memoryview]]:
        capacity = max(1, min(batch, self.max_entries))
        options = BatchOptions()
        # Where the next batch starts, opaque: a bucket number (4 bytes) in hash maps, the last key in others.
        position = ct.create_string_buffer(max(4, self.key_size))
        resume: ct.Array[ct.c_char] | None = None
        code = 0
        while code != errno.ENOENT:
            keys = ct.create_string_buffer(capacity * self.key_size)
            values = ct.create_string_buffer(capacity * self._stored_size)
            count = U32(capacity)
            code = -library().bpf_map_lookup_batch(
                self.fd, resume, position, keys, values, ct.byref(count), ct.byref(options)
            )
            if code == errno.ENOSPC:
                # A hash bucket comes whole or not at all, and this one holds more than `capacity` entries.
                capacity *= 2
            elif code in _WITHOUT_BATCH or (code == errno.EINTR and count.value == 0):
                walk = self._walk(None if resume is None else resume.raw[: self.key_size])
                yield from ((memoryview(key), memoryview(stored)) for key, stored in walk)
                return
            elif code not in (0, errno.ENOENT, errno.EINTR):
                raise self._refusal(code, "read")
            else:
                yield (
                    memoryview(keys)[: count.value * self.key_size],
                    memoryview(values)[: count.value * self._stored_size],
                )
            resume = position

    def _walk(self, key: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """Entries one by one after `key`. If that is removed meanwhile, most kinds of map start over."""
        following = ct.create_string_buffer(self.key_size)
        for _ in range(2 * self.max_entries + 1):
            code = -library().bpf_map_get_next_key(self.fd, key, following)
            if code == errno.ENOENT:
                return
            if code:
                raise self._refusal(code, "read")
            key = following.raw
            if (stored := self._read(key)) is not None:
                yield key, stored
        raise KernelError(f"map {self.name!r} changes faster than it can be read", errno=errno.EAGAIN)

    def _split(self, stored: bytes) -> list[bytes]:
        return [stored[at : at + self.value_size] for at in range(0, len(stored), self._slot)]

    def _expect_percpu(self, wanted: bool) -> None:
        if self.percpu is not wanted:
            usable = "with" if self.percpu else "without"
            raise TypeError(f"map {self.name!r} is a {self.type.name}: use the methods {usable} _percpu")

    def _write_refusal(self, code: int, written: int) -> KernelError:
        if code in _FULL and self.type not in _ARRAYS:
            return MapFull(self.name, self.max_entries, written=written, errno=code)
        if code == errno.E2BIG:
            return KernelError(f"map {self.name!r} ends at index {self.max_entries - 1}", errno=code)
        return self._refusal(code, "write to")

    def _refusal(self, code: int, action: str) -> KernelError:
        return refusal(code, f"{action} map {self.name!r}")


def _expect_size(item: bytes, size: int, what: str) -> None:
    if len(item) != size:
        raise ValueError(f"a {what} of {len(item)} bytes, where the map has {size}")


def _expect_sizes(items: Sequence[bytes], size: int, what: str) -> None:
    if set(map(len, items)) - {size}:
        _expect_size(next(item for item in items if len(item) != size), size, what)


def _pieces(buffer: memoryview, size: int) -> Iterator[bytes]:
    return (piece for (piece,) in struct.iter_unpack(f"{size}s", buffer))
