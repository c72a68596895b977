"""What is blocked, as the bytes that `bpf/block.h` reads. Pure; the header of that file explains the layout.

A million prefixes take a second or two here and 30 to 40 MB there. Everything runs over whole arrays, because
a million of anything in Python is too slow one method call at a time.
"""

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, repeat

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
    slots = _pack_slots([start >> shift for start in starts], parts, 0)
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
    hashes, entries = _found_by(high, ranges.lengths, level_of)
    bits = _bits_for(len(hashes), V6_BITS)
    shift = 64 - bits
    parts = array("I", bytes(4 << bits))
    for hashed in chain(hashes, _marks(high, ranges.lengths)):
        parts[hashed >> shift] |= 1 << (hashed >> _PART_SHIFT & 31)
    # Slot and entry in one number: within a slot, addresses stay in order.
    places = [hashed >> shift << 32 | at for hashed, at in zip(hashes, entries, strict=True)]
    places.sort()
    order = [place & 0xFFFFFFFF for place in places]
    starts = array("Q", bytes(16 * len(order)))
    starts[::2] = array("Q", [high[at] for at in order])
    starts[1::2] = array("Q", [low[at] for at in order])
    infos = _infos(ranges, numbers, 0)
    used = {level_of[length] for length in set(ranges.lengths)}
    levels = sum(BLOCK_LEVELS[level] for level in used | ({_MARKED} if _MARKING in used else set()))
    slots = _pack_slots([place >> 32 for place in places], parts, before)
    return _Section(slots, shift, starts.tobytes(), array("I", [infos[at] for at in order]), levels)


def _choose_levels(lengths: bytes) -> dict[int, int]:
    """By prefix length, how many first bits a prefix is found by: 48 and 32, if not too many are shorter."""
    short = sum(lengths.count(length) << (_MARKED - length) for length in range(_MARKED))
    few = short <= 2 * len(lengths) + 65536
    return {
        length: _MARKING
        if length >= _MARKING
        else _MARKED
        if few or length >= _MARKED
        else next((level for level in (24, 16) if level <= length), _SHORTEST)
        for length in set(lengths)
    }


def _found_by(
    highs: Sequence[int], lengths: bytes, level_of: Mapping[int, int]
) -> tuple[list[int], list[int]]:
    """Hashes, and the number of the entry that is found by each; one shorter than its level has several."""
    first = {length: _MASK >> (64 - level) << (64 - level) for length, level in level_of.items()}
    keys = [high & first[length] | level_of[length] for high, length in zip(highs, lengths, strict=True)]
    entries = list(range(len(keys)))
    for length, level in level_of.items():
        if length < level:
            step, more = 1 << (64 - level), (1 << (level - length)) - 1
            for at in _positions(lengths, length):
                keys += range(keys[at] + step, keys[at] + step * more + 1, step)
                entries += repeat(at, more)
    return _hash(keys), entries


def _positions(lengths: bytes, length: int) -> Iterator[int]:
    at = lengths.find(length)
    while at >= 0:
        yield at
        at = lengths.find(length, at + 1)


def _marks(highs: Iterable[int], lengths: bytes) -> list[int]:
    """Hashes of the first 32 bits of prefixes that are found by 48: an address looks there first."""
    marked = {high >> 32 for high, length in zip(highs, lengths, strict=True) if length >= _MARKING}
    return _hash(top << 32 | _MARKED for top in marked)


def _hash(keys: Iterable[int]) -> list[int]:
    return [(key ^ key >> 32) * _HASH & _MASK for key in keys]


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
