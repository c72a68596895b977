"""The contents of a block list: many prefixes and names, packed, sorted, without repetitions.

A million prefixes are a few megabytes here, where a million `ip_network` objects would be a gigabyte. The
packed form is what the store keeps, named by its SHA-256:

    marchproxy-blocks/1          and a newline
    one line of JSON             v4, v6 (counts), names, notes, marked
    v4 starts, lengths, marks    4 bytes each in network order; 1 byte; 4 bytes, if marked
    v6 starts, lengths, marks    16 bytes each in network order; 1 byte; 4 bytes, if marked

A mark is the number of a note, which holds what the file said about an entry; note 0 says nothing.
"""

import hashlib
import json
import math
import socket
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat

from marchproxy.model.documents import write_field
from marchproxy.model.errors import InvalidValue
from marchproxy.model.readers import parse_expiry

MAGIC = b"marchproxy-blocks/1\n"
MARK = 0xFFFFFFFF
"""The bits of a key (`key_of`) that are the mark."""
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Note:
    """What a file says about entries beside the address."""

    reason: str = ""
    expires: datetime | None = None


NOTHING = Note()

type Entry = tuple[int, int, int]
"""First address as a number, prefix length, mark."""


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Prefixes of one IP version, ascending by address, then length.

    None is inside a lasting other one, nor inside any other where all end at the same time.
    """

    version: int
    starts: bytes = b""
    lengths: bytes = b""
    marks: bytes = b""
    """Empty: all 0."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def width(self) -> int:
        """Bytes of an address."""
        return 4 if self.version == 4 else 16

    def entries(self) -> Iterator[Entry]:
        """All of them."""
        return zip(self._numbers(), self.lengths, self._marks(), strict=False)

    def texts(self) -> Iterator[tuple[str, int]]:
        """Canonical text and mark of each."""
        width, family = self.width, _FAMILIES[self.version]
        marks = self._marks()
        for at, length in enumerate(self.lengths):
            address = socket.inet_ntop(family, self.starts[at * width : (at + 1) * width])
            yield (address if length == width * 8 else f"{address}/{length}"), next(marks)

    def used_marks(self) -> set[int]:
        """The marks that entries have."""
        return set(read_words(self.marks)) if self.marks else set(range(min(1, len(self))))

    def _numbers(self) -> Iterator[int]:
        if self.version == 4:
            return iter(read_words(self.starts))
        starts = self.starts
        return (int.from_bytes(starts[at : at + 16]) for at in range(0, len(starts), 16))

    def _marks(self) -> Iterator[int]:
        return iter(read_words(self.marks)) if self.marks else repeat(0)


@dataclass(frozen=True, slots=True)
class BlockContents:
    """What one list blocks."""

    v4: Prefixes = Prefixes(4)
    v6: Prefixes = Prefixes(6)
    names: tuple[tuple[str, int], ...] = ()
    """Host names, `*.` wildcards included, with their marks; sorted."""
    notes: tuple[Note, ...] = (NOTHING,)

    def __len__(self) -> int:
        return len(self.v4) + len(self.v6) + len(self.names)

    def texts(self) -> Iterator[tuple[str, Note]]:
        """Every entry as canonical text: IPv4, IPv6, then names."""
        for prefixes in (self.v4, self.v6):
            for text, mark in prefixes.texts():
                yield text, self.notes[mark]
        for name, mark in self.names:
            yield name, self.notes[mark]

    def pack(self) -> bytes:
        """The packed form: equal contents are equal bytes."""
        marked = any(prefixes.marks for prefixes in (self.v4, self.v6))
        head = {
            "v4": len(self.v4),
            "v6": len(self.v6),
            "names": self.names,
            "notes": [
                [note.reason, note.expires and write_field("expires", note.expires)] for note in self.notes
            ],
            "marked": marked,
        }
        text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
        parts = [MAGIC, text, b"\n"]
        for prefixes in (self.v4, self.v6):
            parts += [prefixes.starts, prefixes.lengths]
            if marked:
                parts.append(prefixes.marks or bytes(4 * len(prefixes)))
        return b"".join(parts)


def name_of(packed: bytes) -> str:
    """The SHA-256 that names packed contents: 64 hexadecimal digits."""
    return hashlib.sha256(packed).hexdigest()


def unpack(packed: bytes) -> BlockContents:
    """Read what `BlockContents.pack` wrote. Raises `InvalidValue` for anything else."""
    head, newline, body = packed.removeprefix(MAGIC).partition(b"\n")
    try:
        if not packed.startswith(MAGIC) or not newline:
            raise ValueError("its beginning is not that of a block list")
        said = json.loads(head)
        reader = _Reader(body, marked=bool(said["marked"]))
        v4, v6 = reader.take(4, int(said["v4"])), reader.take(6, int(said["v6"]))
        reader.finish()
        names = tuple((str(name), int(mark)) for name, mark in said["names"])
        notes = tuple(Note(str(reason), ends and parse_expiry(ends)) for reason, ends in said["notes"])
        return BlockContents(v4, v6, names, notes)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidValue("contents", packed[:40], f"the packed form of a block list: {error}") from error


def key_of(start: int, length: int, mark: int = 0) -> int:
    """An entry as one number, which sorts as entries do: by address, length, mark."""
    return (start << 8 | length) << 32 | mark


def from_keys(
    v4: list[int],
    v6: list[int],
    names: Iterable[tuple[str, int]] = (),
    notes: tuple[Note, ...] = (NOTHING,),
) -> BlockContents:
    """Contents of entries (`key_of`), without those that say nothing new: inside one that lasts as long.

    Both lists are emptied on the way: two copies of a million keys would be more memory than all the rest.
    """
    ends = [note.expires.timestamp() if note.expires else math.inf for note in notes]
    known: dict[str, int] = {}
    for name, mark in names:
        if name not in known or ends[mark] > ends[known[name]]:
            known[name] = mark
    return BlockContents(
        _pack_family(4, v4, ends), _pack_family(6, v6, ends), tuple(sorted(known.items())), notes
    )


def _pack_family(version: int, keys: list[int], ends: Sequence[float]) -> Prefixes:
    bits = 32 if version == 4 else 128
    keys.sort()
    kept = without_covered(keys, bits, ends)
    keys.clear()
    if version == 4:
        starts = write_words(array("I", [key >> 40 for key in kept]))
    else:
        starts = b"".join([(key >> 40).to_bytes(16) for key in kept])
    marks = array("I", [key & MARK for key in kept])
    lengths = bytes([key >> 32 & 0xFF for key in kept])
    return Prefixes(version, starts, lengths, write_words(marks) if any(marks) else b"")


def without_covered(keys: Iterable[int], bits: int, ends: Sequence[float]) -> list[int]:
    """Of sorted keys those that are not inside one before them that lasts as long.

    `ends`: by mark, until when an entry lasts, on any scale.
    """
    # ORed to a key: the greatest key that can be inside it.
    inside = [(1 << (bits - length)) - 1 << 40 | (1 << 40) - 1 for length in range(bits + 1)]
    kept = []
    covered, until = -1, -math.inf
    for key in keys:
        if key > covered or ends[key & MARK] > until:
            covered, until = key | inside[key >> 32 & 0xFF], ends[key & MARK]
            kept.append(key)
    return kept


def read_words(raw: bytes) -> "array[int]":
    """Numbers of 4 bytes in network order."""
    words = array("I", raw)
    if sys.byteorder == "little":
        words.byteswap()
    return words


def write_words(words: "array[int]") -> bytes:
    """The same backwards. `words` are not to be used afterwards."""
    if sys.byteorder == "little":
        words.byteswap()
    return words.tobytes()


class _Reader:
    """Takes sections off packed bytes."""

    def __init__(self, body: bytes, *, marked: bool) -> None:
        self._body = memoryview(body)
        self._marked = marked
        self._at = 0

    def take(self, version: int, count: int) -> Prefixes:
        width = 4 if version == 4 else 16
        starts, lengths = self._section(count * width), self._section(count)
        if count and max(lengths) > width * 8:
            raise ValueError("a prefix is longer than its address")
        marks = self._section(4 * count) if self._marked else b""
        return Prefixes(version, starts, lengths, marks if any(marks) else b"")

    def finish(self) -> None:
        if self._at != len(self._body):
            raise ValueError("there is more than its counts say")

    def _section(self, size: int) -> bytes:
        section = bytes(self._body[self._at : self._at + size])
        if size < 0 or len(section) != size:
            raise ValueError("it ends early")
        self._at += size
        return section
