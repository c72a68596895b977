"""What is blocked, as the bytes that `bpf/block.h` reads. Pure; the header of that file explains the layout.

A million prefixes take a second or two here and 30 to 40 MB there. Everything runs over whole arrays, because
a million of anything in Python is too slow one method call at a time.
"""

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.layouts import BLOCK_LEVELS, BLOCK_LINE
from marchproxy.policy.blocks import BlockLayer, Ranges

PARTS_BITS = 5
"""A slot has 32 parts."""
V4_BITS = (8, 19)
"""Fewest and most bits of an IPv4 address that choose the slot: with 19, a part is a /24."""
V6_BITS = (6, 20)
"""The same for the bits of the hash."""
_MAPPED = 0xFFFF << 32
_V4_LENGTH = 96
_ALL_PARTS = 0xFFFFFFFF
_HASH = 0x9E3779B97F4A7C15
_PART_SHIFT = 38
_MASK = (1 << 64) - 1
_SHORTEST = min(BLOCK_LEVELS)
_MARKING, _MARKED = 48, 32
"""What is found by the first length is marked under the second."""


@dataclass(frozen=True, slots=True)
class _Section:
    """One family's slots, and its entries in their order."""

    slots: bytes
    shift: int
    starts: bytes
    infos: "array[int]"
    levels: int = 0


def build_image(layer: BlockLayer, numbers: Sequence[int]) -> bytes:
    """The image of a layer, whole lines. `numbers`: what events call each of its owners, 1 to 2^24 - 1."""
    v4 = _build_v4(layer.v4, numbers)
    v6 = _build_v6(layer.v6, numbers, len(v4.infos))
    infos = v4.infos + v6.infos
    sections = [v4.slots, v6.slots, v4.starts + v6.starts, infos.tobytes()]
    sizes = [-(-len(section) // BLOCK_LINE) for section in sections]
    v4_slots, v6_slots, starts, infos_at, _ = accumulate(sizes, initial=1)
    header = layouts.BLOCK_HEADER.struct.pack(
        v4_slots if v4.slots else 0, v4.shift, v6_slots, v6.shift, v6.levels, starts, infos_at
    )
    padded = (each.ljust(size * BLOCK_LINE, b"\0") for each, size in zip(sections, sizes, strict=True))
    return b"".join((header, *padded))


def _build_v4(ranges: Ranges, numbers: Sequence[int]) -> _Section:
    if not len(ranges):
        return _Section(b"", 0, b"", array("I"))
    bits = _bits_for(len(ranges), V4_BITS)
    shift = 32 - bits
    starts, lengths = memoryview(ranges.starts).cast("I"), ranges.lengths
    parts = array("I", bytes(4 << bits))
    for start, length in zip(starts, lengths, strict=True):
        part = start >> (shift - PARTS_BITS)
        if length >= bits + PARTS_BITS:
            parts[part >> PARTS_BITS] |= 1 << (part & 31)
        elif length >= bits:
            parts[part >> PARTS_BITS] |= ((1 << (1 << (bits + PARTS_BITS - length))) - 1) << (part & 31)
        else:
            count, slot = 1 << (bits - length), part >> PARTS_BITS
            parts[slot : slot + count] = array("I", (_ALL_PARTS,)) * count
    slots = _pack_slots((start >> shift for start in starts), parts, 0)
    mapped = array("Q", bytes(16 * len(ranges)))
    mapped[1::2] = array("Q", [_MAPPED | start for start in starts])
    return _Section(slots, shift, mapped.tobytes(), _infos(ranges, numbers, _V4_LENGTH))


def _build_v6(ranges: Ranges, numbers: Sequence[int], before: int) -> _Section:
    """`before`: how many entries the IPv4 prefixes have taken."""
    halves = array("Q", ranges.starts)
    if sys.byteorder == "little":
        halves.byteswap()
    high, low = halves[::2], halves[1::2]
    level_of = _choose_levels(ranges.lengths)
    places = list(_places(high, ranges.lengths, level_of))
    bits = _bits_for(len(places), V6_BITS)
    shift = 64 - bits
    parts = array("I", bytes(4 << bits))
    for hashed in (*(hashed for _, hashed in places), *_marks(high, ranges.lengths)):
        parts[hashed >> shift] |= 1 << (hashed >> _PART_SHIFT & 31)
    # Stable: within a slot, addresses stay in order.
    places.sort(key=lambda place: place[1] >> shift)
    order = [at for at, _ in places]
    starts = array("Q", bytes(16 * len(order)))
    starts[::2] = array("Q", [high[at] for at in order])
    starts[1::2] = array("Q", [low[at] for at in order])
    infos = _infos(ranges, numbers, 0)
    used = {level_of[length] for length in ranges.lengths}
    levels = sum(BLOCK_LEVELS[level] for level in used | ({_MARKED} if _MARKING in used else set()))
    slots = _pack_slots((hashed >> shift for _, hashed in places), parts, before)
    return _Section(slots, shift, starts.tobytes(), array("I", [infos[at] for at in order]), levels)


def _choose_levels(lengths: bytes) -> dict[int, int]:
    """By prefix length, how many first bits a prefix is found by: 48 and 32, if not too many are shorter."""
    short = sum(1 << (_MARKED - length) for length in lengths if length < _MARKED)
    few = short <= 2 * len(lengths) + 65536
    return {
        length: _MARKING
        if length >= _MARKING
        else _MARKED
        if few or length >= _MARKED
        else next((level for level in (24, 16) if level <= length), _SHORTEST)
        for length in set(lengths)
    }


def _places(highs: Iterable[int], lengths: bytes, level_of: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Number of an entry, and a hash that it is found by; one that is shorter than its level has several."""
    for at, (high, length) in enumerate(zip(highs, lengths, strict=True)):
        level = level_of[length]
        first = high >> (64 - level)
        for top in range(first, first + (1 << max(0, level - length))):
            yield at, _hash(top << (64 - level) | level)


def _marks(highs: Iterable[int], lengths: bytes) -> Iterator[int]:
    """Hashes of the first 32 bits of prefixes that are found by 48: an address looks there first."""
    mask = ((1 << _MARKED) - 1) << (64 - _MARKED)
    for high, length in zip(highs, lengths, strict=True):
        if length >= _MARKING:
            yield _hash(high & mask | _MARKED)


def _hash(key: int) -> int:
    return (key ^ key >> 32) * _HASH & _MASK


def _bits_for(entries: int, limits: tuple[int, int]) -> int:
    low, high = limits
    return max(low, min(high, entries.bit_length()))


def _pack_slots(slots: Iterable[int], parts: "array[int]", before: int) -> bytes:
    """Slots; one more at the end tells where the last one's entries end."""
    counts = array("I", bytes(4 * (len(parts) + 1)))
    for slot in slots:
        counts[slot + 1] += 1
    counts[0] = before
    packed = array("I", bytes(8 * len(counts)))
    packed[::2] = array("I", accumulate(counts))
    packed[1:-2:2] = parts
    return packed.tobytes()


def _infos(ranges: Ranges, numbers: Sequence[int], added: int) -> "array[int]":
    by_length = [length + added << 24 for length in range(129)]
    owners = ranges.owner_numbers()
    return array(
        "I",
        [by_length[length] | numbers[owner] for length, owner in zip(ranges.lengths, owners, strict=True)],
    )
