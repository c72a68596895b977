"""Blocks for tests, written as text, and a slow reference that shares no code with what it checks."""

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from marchproxy.model.address import IPAddress, Prefix
from marchproxy.model.appliance import Block, BlockList
from marchproxy.model.blockfile import read_blocks
from marchproxy.model.blocklist import BlockContents, name_of
from marchproxy.policy.blocks import BlockMemo, Blocks, compile_blocks

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def contents(*lines: str) -> BlockContents:
    """The contents of a file of these lines; none of them bad."""
    reading = read_blocks(lines, NOW)
    assert reading.bad == ()
    return reading.contents


def block_list(name: str, held: BlockContents, **fields: object) -> BlockList:
    """A list with these contents."""
    return BlockList(name, name_of(held.pack()), len(held), **fields)  # type: ignore[arg-type]


def blocks(*single: str, **lists: Sequence[str]) -> Blocks:
    """Single blocks, and lists by name."""
    held = {name: contents(*lines) for name, lines in lists.items()}
    named = tuple(block_list(name, each) for name, each in held.items())
    by_hash = {item.sha256: held[item.name] for item in named}
    own = tuple(Block(name) for name in sorted(single))
    return compile_blocks(own, named, by_hash, {}, NOW, BlockMemo()).blocks


class Oracle:
    """Whether an address is in any of some prefixes: a set of leading bits for each length."""

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self._held: set[tuple[int, int, int]] = set()
        for prefix in prefixes:
            bits = prefix.max_prefixlen - prefix.prefixlen
            self._held.add((prefix.version, prefix.prefixlen, int(prefix.network_address) >> bits))

    def blocks(self, address: IPAddress) -> bool:
        bits, number = address.max_prefixlen, int(address)
        return any(
            (address.version, length, number >> (bits - length)) in self._held for length in range(bits + 1)
        )


def random_prefixes(chance: random.Random, count: int, version: int) -> list[Prefix]:
    """Prefixes of all lengths, more of the usual ones, some of them close to each other."""
    bits = 32 if version == 4 else 128
    usual = (16, 20, 24, 24, 32, 32, 32) if version == 4 else (29, 32, 40, 48, 48, 56, 64, 64, 128, 128)
    around = [chance.getrandbits(bits) for _ in range(8)]
    found: list[Prefix] = []
    for _ in range(count):
        length = chance.choice(usual) if chance.random() < 0.97 else chance.randint(6, bits)
        number = chance.getrandbits(bits)
        if chance.random() < 0.5:
            number = chance.choice(around) ^ chance.getrandbits(chance.randint(1, bits // 2))
        found.append(_prefix(version, number >> (bits - length) << (bits - length), length))
    return found


def near(chance: random.Random, prefix: Prefix) -> IPAddress:
    """An address in a prefix, just before it, just after it, or somewhere in the neighbourhood."""
    bits = prefix.max_prefixlen
    first, size = int(prefix.network_address), prefix.num_addresses
    inside, flipped = first + chance.randrange(size), first ^ 1 << chance.randrange(bits)
    number = chance.choice((first, first + size - 1, first - 1, first + size, inside, flipped)) % (1 << bits)
    return IPv4Address(number) if prefix.version == 4 else IPv6Address(number)


def _prefix(version: int, number: int, length: int) -> IPv4Network | IPv6Network:
    return IPv4Network((number, length)) if version == 4 else IPv6Network((number, length))


def prefix(text: str) -> Prefix:
    """A prefix from text."""
    return ip_network(text)
