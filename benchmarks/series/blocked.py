"""Series of traffic that nothing blocks, past so many blocked prefixes, beside netfilter with the same list.

xdp-filter is not here: it holds single addresses, ten thousand at most. `benchmarks.block` has it with those.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import ClassVar

from benchmarks.bed import Bed
from benchmarks.block import mixed
from benchmarks.contenders import MarchProxy, MarchProxyXDP, Nftables
from benchmarks.series.live import PATIENCE, Series, Stand, exchange

BLOCKED = (0, 1_000, 100_000, 1_000_000)
SIZE = 64
"""Bytes of a datagram."""


def listed(bed: Bed, count: int) -> Path:
    """A file of so many prefixes, the same for all."""
    file = bed.rig.files / f"blocked-{count}.txt"
    if not file.exists():
        file.write_text("".join(mixed(count, random.Random(42))))
    return file


def outermost(lines: Iterable[str]) -> Iterator[str]:
    """The IPv4 prefixes that lie in no other: netfilter takes no intervals that overlap."""
    found = sorted(
        (int(IPv4Address(address)), int(length))
        for address, _, length in (line.strip().partition("/") for line in lines)
        if ":" not in address
    )
    last = -1
    for start, length in found:
        if start > last:
            yield f"{IPv4Address(start)}/{length}"
            last = start + (1 << 32 - length) - 1


class BlocksMarchProxy(MarchProxy):
    """With a list that was imported."""

    patience = PATIENCE

    def __init__(self, bed: Bed, count: int) -> None:
        """Write its configuration."""
        self.name = f"{self.name}-blocks-{count}"  # type: ignore[misc]
        super().__init__(bed)
        if count:
            words = [*self.appliance.command, "block", "import", str(listed(bed, count))]
            bed.rig.middle.run(words, env=self.appliance.env, timeout=4 * PATIENCE)


class BlocksMarchProxyXDP(BlocksMarchProxy, MarchProxyXDP):
    """The same by XDP."""


class BlocksNftables(Nftables):
    """With one set of intervals, which is asked before conntrack, as netfilter's documentation advises."""

    title: ClassVar[str] = "nftables NAT, one set"

    def __init__(self, bed: Bed, count: int) -> None:
        """Prepare what only needs preparing once."""
        super().__init__(bed)
        self._elements = ", ".join(outermost(listed(bed, count).read_text().splitlines()))

    def _rules(self) -> str:
        if not self._elements:
            return super()._rules()
        return f"""{super()._rules()}
            table ip blocks {{
                set blocked {{ type ipv4_addr; flags interval; elements = {{ {self._elements} }}
                }}
                chain early {{ type filter hook prerouting priority raw;
                    ip saddr @blocked drop
                    ip daddr @blocked drop
                }}
            }}
        """


def with_blocks(bed: Bed) -> Sequence[Stand]:
    """A contender for each number of prefixes."""
    kinds = (BlocksMarchProxy, BlocksMarchProxyXDP, BlocksNftables)
    return [Stand(kind(bed, count), (count,)) for count in BLOCKED for kind in kinds]


def datagrams(bed: Bed, target: str, _step: int, seconds: float) -> float:
    """Datagrams a second, both ways together, 64 in flight."""
    return exchange(4, 16, udp=True)(bed, target, SIZE, seconds)


SERIES = (
    Series(
        *("blocked", f"UDP datagrams of {SIZE} bytes that nothing blocks", "blocked prefixes", "k/s", 1e3),
        *("µs/packet", 1e6, with_blocks, datagrams),
    ),
)
