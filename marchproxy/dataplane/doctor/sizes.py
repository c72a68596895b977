"""How large packets may be on the way to an address, found by asking. No I/O.

Not by watching: segments that are sent again are as large as all others on a link that has died, so nothing
that passes tells a narrow way from a dead one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

SMALLEST = 100
"""Bytes of a packet that every link takes (RFC 791 demands 68, RFC 8200 1280)."""
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Told:
    """Somebody on the way says what the next link takes."""

    mtu: int
    """Bytes of a packet; 0: a router that does not say (RFC 1191 section 5)."""
    sender: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back for packets of some sizes."""

    answered: frozenset[int]
    told: Told | None = None


class Asker(Protocol):
    """Sends packets of chosen sizes."""

    def ask(self, sizes: Iterable[int]) -> Heard:
        """What comes back, after a while."""


@dataclass(frozen=True, slots=True)
class PathSize:
    """What was found; sizes are IP lengths in bytes."""

    largest: int
    """That was answered; 0: nothing was."""
    tried: int
    """The largest that the own device takes."""
    told: Told | None = None
    """Who says that larger ones do not pass; None: nobody does."""

    @property
    def is_black_hole(self) -> bool:
        """Whether large packets vanish without a word."""
        return 0 < self.largest < self.tried and self.told is None


def find_size(asker: Asker, most: int) -> PathSize:
    """The largest size up to `most` that is answered, to the byte."""
    heard = asker.ask((SMALLEST, most))
    if SMALLEST not in heard.answered:
        return PathSize(0, most, heard.told)
    if most in heard.answered or heard.told:
        return PathSize(most if most in heard.answered else SMALLEST, most, heard.told)
    low, high = SMALLEST, most
    while high - low > 1:
        steps = min(_AT_ONCE, high - low - 1)
        sizes = sorted({low + (high - low) * step // (steps + 1) for step in range(1, steps + 1)} - {low})
        heard = asker.ask(sizes)
        if heard.told:
            return PathSize(max(heard.answered, default=low), most, heard.told)
        passed = [size for size in sizes if size in heard.answered]
        low = max(passed, default=low)
        high = min((size for size in sizes if size > low and size not in heard.answered), default=high)
    return PathSize(low, most)
