"""The image of blocks, read back as block.h reads it: the same searches, in Python."""

import random
import struct
from ipaddress import IPv4Address

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.blockimage import V4_BITS, build_image
from marchproxy.model.address import IPAddress
from marchproxy.policy.blocks import BlockLayer
from tests.policy.blocking import blocks, near, random_prefixes

NUMBERS = [7, 9, 0xFFFFFF]


class Image:
    """An image, asked as `block_owner` asks it."""

    def __init__(self, raw: bytes) -> None:
        self.words: tuple[int, ...] = struct.unpack(f"={len(raw) // 8}Q", raw)
        fields = layouts.BLOCK_HEADER.struct.unpack(raw[: layouts.BLOCK_HEADER.size])
        self.header: dict[str, int] = dict(zip(layouts.BLOCK_HEADER.fields, fields, strict=True))

    def word(self, line: str, index: int) -> int:
        word: int = self.words[self.header[line] * 8 + index]
        return word

    def owner(self, address: IPAddress) -> int:
        number = int.from_bytes(layouts.pack_address(address))
        if address.version == 4:
            shift = self.header["v4_shift"]
            low = number & 0xFFFFFFFF
            return self.header["v4_slots"] and self.slot("v4_slots", low >> shift, low >> shift - 5, number)
        if number >> 96 == 0 and number >> 32 == 0xFFFF:
            raise AssertionError("on wires this is IPv4")
        used = {length for length, bit in layouts.BLOCK_LEVELS.items() if self.header["levels"] & bit}
        assert 48 not in used or 32 in used
        held, owner = self.level(number, 32) if 32 in used else (False, 0)
        for length in ({48} if held else set()) | {24, 16}:
            if not owner and length in used:
                _, owner = self.level(number, length)
        return owner

    def level(self, number: int, length: int) -> tuple[bool, int]:
        key = (number >> 64) >> (64 - length) << (64 - length) | length
        hashed = (key ^ key >> 32) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
        slot, part = hashed >> self.header["v6_shift"], hashed >> 38
        held = bool(self.word("v6_slots", slot) >> 32 >> (part & 31) & 1)
        return held, self.slot("v6_slots", slot, part, number)

    def slot(self, slots: str, slot: int, part: int, number: int) -> int:
        word = self.word(slots, slot)
        if not word >> 32 >> (part & 31) & 1:
            return 0
        low, above = word & 0xFFFFFFFF, self.word(slots, slot + 1) & 0xFFFFFFFF
        while low < above:
            middle = (low + above) // 2
            low, above = (middle + 1, above) if self.start(middle) <= number else (low, middle)
        if not low:
            return 0
        info = self.word("infos", (low - 1) // 2) >> (low - 1) % 2 * 32 & 0xFFFFFFFF
        return 0 if (number ^ self.start(low - 1)) >> (128 - (info >> 24)) else info & layouts.BLOCK_OWNER_MAX

    def start(self, at: int) -> int:
        return self.word("starts", 2 * at) << 64 | self.word("starts", 2 * at + 1)


def check(layer: BlockLayer, chance: random.Random, addresses: list[IPAddress]) -> None:
    numbers = NUMBERS[: len(layer.owners)]
    image = Image(build_image(layer, numbers))
    by_name = dict(zip(layer.owners, numbers, strict=True))
    for address in addresses:
        assert image.owner(address) == by_name.get(layer.find(address), 0), address


@pytest.mark.parametrize("count", [0, 1, 3, 100, 5000])
def test_image_answers_as_the_policy_does(count: int) -> None:
    chance = random.Random(count)
    lists = {name: random_prefixes(chance, count, 4) + random_prefixes(chance, count, 6) for name in "abc"}
    every = [prefix for prefixes in lists.values() for prefix in prefixes] or random_prefixes(chance, 5, 4)
    layer = blocks(**{name: [str(prefix) for prefix in prefixes] for name, prefixes in lists.items()}).lists
    addresses = [near(chance, chance.choice(every)) for _ in range(2000)]
    # Not on wires, and in the image's numbers the same as IPv4.
    check(layer, chance, [each for each in addresses if each.version == 4 or int(each) >> 32 != 0xFFFF])


WIDE = ("0.0.0.0/0", "128.0.0.0/1", "::/0", "8000::/1", "2000::/3", "10.0.0.0/9", "fc00::/15")


@pytest.mark.parametrize("prefix", WIDE)
def test_prefix_that_fills_many_slots(prefix: str) -> None:
    chance = random.Random(prefix)
    layer = blocks(list=[prefix, "192.0.2.1", "2001:db8::/64"]).lists
    around = [near(chance, each) for version in (4, 6) for each in random_prefixes(chance, 300, version)]
    check(layer, chance, [each for each in around if each.version == 4 or int(each) >> 32 != 0xFFFF])


@pytest.mark.parametrize("bits", range(8, 33))
def test_every_length_beside_the_slots_own(bits: int) -> None:
    first = IPv4Address(0xC0A85A5A >> (32 - bits) << (32 - bits))
    layer = blocks(list=[f"{first}/{bits}"]).lists
    image = Image(build_image(layer, [7]))
    size = 1 << (32 - bits)
    assert image.header["v4_shift"] == 32 - V4_BITS[0]
    assert [image.owner(IPv4Address(int(first) + at)) for at in (-1, 0, size - 1, size)] == [0, 7, 7, 0]


def test_image_is_whole_lines_and_small() -> None:
    layer = blocks(list=[f"10.{number >> 8}.{number & 255}.1" for number in range(10_000)]).lists
    image = build_image(layer, [1])
    assert len(image) % layouts.BLOCK_LINE == 0
    assert len(image) < 10_000 * 40
