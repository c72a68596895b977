"""What is blocked at one moment: single blocks and lists, merged so that every address has one answer.

Two layers, because their sizes and habits differ: imported lists hold millions of prefixes and change once a
day, single blocks and the addresses of blocked names are few and change every minute. What did not change
stays the same object, so that nobody builds a million entries anew for one more.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from marchproxy.model.address import HostName, IPAddress, Prefix, parse_address
from marchproxy.model.appliance import Block, BlockList
from marchproxy.model.blocklist import BlockContents, Prefixes, key_of, read_words, without_covered

MAX_RESOLVED = 1000
"""Blocked names that are resolved, single blocks first. The DNS listener refuses all of them."""
_OWNER_LENGTH = 127

type Contents = MappingABC[str, BlockContents]
"""By the SHA-256 that lists name."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """Prefixes of one IP version that do not overlap, ascending, each with the number of its owner."""

    version: int
    starts: bytes = b""
    """IPv4: 4 bytes each in the machine's order; IPv6: 16 bytes in network order."""
    lengths: bytes = b""
    owners: bytes = b""
    """4 bytes each in the machine's order."""

    def __len__(self) -> int:
        return len(self.lengths)

    def owner_numbers(self) -> memoryview:
        """The owners as numbers."""
        return memoryview(self.owners).cast("I")

    def find(self, address: IPAddress) -> int | None:
        """The owner of the prefix that contains `address`."""
        if not self.lengths:
            return None
        number, bits = int(address), address.max_prefixlen
        if self.version == 4:
            starts = memoryview(self.starts).cast("I")
            at = bisect_right(starts, number) - 1
            start = starts[at]
        else:
            at = bisect_right(range(len(self)), address.packed, key=self._packed) - 1
            start = int.from_bytes(self._packed(at))
        if at < 0 or (number ^ start) >> (bits - self.lengths[at]):
            return None
        return int(self.owner_numbers()[at])

    def _packed(self, at: int) -> bytes:
        return self.starts[16 * at : 16 * at + 16]


@dataclass(frozen=True, slots=True)
class BlockLayer:
    """Some of what is blocked; `owners` says by what, as events name it."""

    v4: Ranges = Ranges(4)
    v6: Ranges = Ranges(6)
    owners: tuple[str, ...] = ()
    """`block:ENTRY` or `block-list:NAME`."""

    def __len__(self) -> int:
        return len(self.v4) + len(self.v6)

    def find(self, address: IPAddress) -> str:
        """What blocks an address; empty: nothing."""
        owner = (self.v4 if address.version == 4 else self.v6).find(address)
        return "" if owner is None else self.owners[owner]


@dataclass(frozen=True, slots=True)
class Blocks:
    """All that is blocked. An address in both layers is blocked by the single block."""

    single: BlockLayer = BlockLayer()
    lists: BlockLayer = BlockLayer()
    names: MappingABC[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Host names, `*.` wildcards included, to what blocks them."""

    def __bool__(self) -> bool:
        return bool(len(self.single) or len(self.lists) or self.names)

    def find(self, address: IPAddress) -> str:
        """What blocks an address; empty: nothing."""
        return self.single.find(address) or self.lists.find(address)

    def find_name(self, name: str) -> str:
        """What blocks a host name, itself or by a wildcard above it; empty: nothing."""
        name = name.lower().removesuffix(".")
        found = self.names.get(name, "")
        while not found and "." in name:
            name = name.partition(".")[2]
            found = self.names.get(f"*.{name}", "")
        return found


NOTHING_BLOCKED = Blocks()


@dataclass(frozen=True, slots=True)
class BlockMemo:
    """What blocks were compiled from, and what they came to."""

    blocks: Blocks = NOTHING_BLOCKED
    resolving: frozenset[str] = frozenset()
    """Host names whose addresses are blocked."""
    next_expiry: datetime | None = None
    own: tuple[Block, ...] = ()
    """The single blocks that hold."""
    lists: tuple[object, ...] = ()
    """What tells the lists that hold from others."""
    resolved: MappingABC[str, tuple[IPAddress, ...]] = field(default_factory=dict)


def compile_blocks(
    blocks: Sequence[Block],
    lists: Sequence[BlockList],
    contents: Contents,
    names: MappingABC[str, Sequence[IPAddress]],
    now: datetime,
    before: BlockMemo,
) -> BlockMemo:
    """Everything that is blocked at `now`. A list whose contents are not given blocks nothing."""
    if not blocks and not lists:
        return BlockMemo() if before.blocks or before.next_expiry else before
    own = tuple(block for block in blocks if block.expires is None or block.expires > now)
    parts = [
        _Part(item, contents[item.sha256], _live_marks(contents[item.sha256], now))
        for item in lists
        if item.sha256 in contents and (item.expires is None or item.expires > now)
    ]
    key = tuple((part.item.name, part.item.sha256, part.live) for part in parts)
    held, named, resolving = before.blocks, before.blocks.names, before.resolving
    if (own, key) != (before.own, before.lists):
        named = _names(own, parts)
        resolving = frozenset([name for name in named if not name.startswith("*.")][:MAX_RESOLVED])
    resolved = {name: tuple(names[name]) for name in sorted(resolving & names.keys())}
    same_single = (own, resolved) == (before.own, before.resolved) and named is held.names
    single = held.single if same_single else _single(own, resolved, named)
    merged = held.lists if key == before.lists else _merge_lists(parts)
    unchanged = single is held.single and merged is held.lists and named is held.names
    result = held if unchanged else Blocks(single, merged, named)
    return BlockMemo(result, resolving, _next_expiry(blocks, lists, contents, now), own, key, resolved)


@dataclass(frozen=True, slots=True)
class _Part:
    item: BlockList
    contents: BlockContents
    live: frozenset[int] | None
    """Marks whose entries have not expired; None: all of them."""

    @property
    def is_disjoint(self) -> bool:
        """Whether all entries hold, and none is inside another."""
        if self.live is None:
            return True
        notes = self.contents.notes
        used = self.contents.v4.used_marks() | self.contents.v6.used_marks()
        return used <= self.live and len({notes[mark].expires for mark in used}) <= 1

    def keys(self, prefixes: Prefixes, owner: int) -> list[int]:
        """Entries that hold, with an owner for their mark."""
        live = self.live
        return [
            (start << 8 | length) << 32 | owner
            for start, length, mark in prefixes.entries()
            if live is None or mark in live
        ]


def _live_marks(contents: BlockContents, now: datetime) -> frozenset[int] | None:
    if all(note.expires is None for note in contents.notes):
        return None
    marks = enumerate(contents.notes)
    return frozenset(mark for mark, note in marks if note.expires is None or note.expires > now)


def _next_expiry(
    blocks: Iterable[Block], lists: Iterable[BlockList], contents: Contents, now: datetime
) -> datetime | None:
    instants = [block.expires for block in blocks] + [item.expires for item in lists]
    for item in lists:
        if item.sha256 in contents:
            instants += [note.expires for note in contents[item.sha256].notes]
    return min((instant for instant in instants if instant is not None and instant > now), default=None)


def _names(blocks: Iterable[Block], parts: Iterable[_Part]) -> MappingABC[str, str]:
    found = {block.name: owner_name("block", block.name) for block in blocks if _is_name(block.name)}
    for part in parts:
        owner = owner_name("block-list", part.item.name)
        for name, mark in part.contents.names:
            if part.live is None or mark in part.live:
                found.setdefault(name, owner)
    return MappingProxyType(found)


def _single(
    blocks: Iterable[Block],
    resolved: MappingABC[str, Sequence[IPAddress]],
    named: MappingABC[str, str],
) -> BlockLayer:
    owners: dict[str, int] = {}
    found: dict[int, list[tuple[Prefix, int]]] = {4: [], 6: []}

    def add(prefix: Prefix, owner: str) -> None:
        found[prefix.version].append((prefix, owners.setdefault(owner, len(owners))))

    for block in blocks:
        if not _is_name(block.name):
            address = parse_address(block.name)
            if not isinstance(address, HostName):
                add(address, owner_name("block", block.name))
    for name, addresses in resolved.items():
        for each in addresses:
            address = parse_address(str(each))
            if not isinstance(address, HostName):
                add(address, named[name])
    v4, v6 = (
        _merge(
            version,
            [key_of(int(p.network_address), p.prefixlen, owner) for p, owner in found[version]],
            len(owners),
        )
        for version in (4, 6)
    )
    return BlockLayer(v4, v6, tuple(owners))


def _merge_lists(parts: Sequence[_Part]) -> BlockLayer:
    owners = tuple(owner_name("block-list", part.item.name) for part in parts)
    if len(parts) == 1 and parts[0].is_disjoint:
        contents = parts[0].contents
        return BlockLayer(_whole(contents.v4), _whole(contents.v6), owners)
    count = len(parts)
    v4 = _merge(4, [key for at, part in enumerate(parts) for key in part.keys(part.contents.v4, at)], count)
    v6 = _merge(6, [key for at, part in enumerate(parts) for key in part.keys(part.contents.v6, at)], count)
    return BlockLayer(v4, v6, owners)


def _whole(prefixes: Prefixes) -> Ranges:
    """A list by itself is in order already."""
    starts = read_words(prefixes.starts).tobytes() if prefixes.version == 4 else prefixes.starts
    return Ranges(prefixes.version, starts, prefixes.lengths, bytes(4 * len(prefixes)))


def _merge(version: int, keys: list[int], owners: int) -> Ranges:
    """Ranges of keys whose marks are numbers below `owners`.

    Where prefixes overlap the widest counts, of equal ones the first owner's.
    """
    keys.sort()
    kept = without_covered(keys, 32 if version == 4 else 128, [0.0] * owners)
    if version == 4:
        starts = array("I", [key >> 40 for key in kept]).tobytes()
    else:
        starts = b"".join([(key >> 40).to_bytes(16) for key in kept])
    lengths = bytes([key >> 32 & 0xFF for key in kept])
    return Ranges(version, starts, lengths, array("I", [key & 0xFFFFFFFF for key in kept]).tobytes())


def owner_name(kind: str, name: str) -> str:
    """What events call the thing that blocks, at most 127 bytes."""
    text = f"{kind}:{name}"
    return text if len(text) <= _OWNER_LENGTH else text[: _OWNER_LENGTH - 3] + "..."


def _is_name(text: str) -> bool:
    return text.startswith("*.") or isinstance(parse_address(text), HostName)
