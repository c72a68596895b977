"""How many requests a second, of each client, credential or mapping: counted by all processes together.

A token bucket in the form of the generic cell rate algorithm (ITU-T I.371, Annex A): of each key only the
time is kept at which its bucket would be full again. The table has a fixed size, whoever comes with however
many addresses; each key has a few places where it may be, and takes the one that is free for longest. The
clock is the machine's monotonic one, which all processes share.

Nothing locks it. Two processes that count one request of the same key at the same instant may count one for
two, which lets a request through too many; a bucket is never filled by that for longer than its own length.
"""

import math
import mmap
import os
import struct
import time
from hashlib import blake2b

from marchproxy.policy.plan import RequestLimit

SLOTS = 1 << 16
"""Keys that are remembered at one time, some of them."""
WAYS = 8
"""Places where a key may be."""
_SECRET = 32
_SLOT = struct.Struct("=Qd")
"""Hash of the key, 0: of none; and when its bucket is full again."""
SIZE = _SECRET + SLOTS * _SLOT.size
_SET = WAYS * _SLOT.size
_WHOLE_SET = struct.Struct("=" + "Qd" * WAYS)


def share() -> int:
    """A descriptor of a table for several processes."""
    descriptor = os.memfd_create("rates", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, SIZE)
    # So that nobody can choose addresses that share a place.
    os.pwrite(descriptor, os.urandom(_SECRET), 0)
    return descriptor


class Rates:
    """The table."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Of `share`, which stays the caller's; None: of this process alone."""
        own = share() if descriptor is None else descriptor
        self._memory = mmap.mmap(own, SIZE)
        if descriptor is None:
            os.close(own)
        self._secret = self._memory[:_SECRET]

    def wait(self, mapping: str, key: str, limit: RequestLimit, now: float | None = None) -> float:
        """Count a request: 0.0, or in how many seconds it may come again; then it is not counted."""
        now = time.monotonic() if now is None else now
        name = blake2b(f"{mapping}\0{key}".encode(), digest_size=12, key=self._secret).digest()
        hashed = int.from_bytes(name[:8], "little") or 1
        start = _SECRET + int.from_bytes(name[8:], "little") % (SLOTS // WAYS) * _SET
        at, full = self._find(start, hashed)
        full = max(full, now)
        # A bucket cannot be further from full than it is large: what is, a torn write left there.
        interval = 1.0 / limit.rate
        length = interval * limit.burst
        full = min(full, now + length)
        if full + interval - now > length * (1 + 1e-9):
            return full + interval - now - length
        _SLOT.pack_into(self._memory, at, hashed, full + interval)
        return 0.0

    def close(self) -> None:
        """Let go of it."""
        self._memory.close()

    def _find(self, start: int, hashed: int) -> tuple[int, float]:
        """Where a key is or may be put, and when its bucket is full."""
        held = _WHOLE_SET.unpack_from(self._memory, start)
        best, soonest = 0, math.inf
        for way in range(WAYS):
            full = held[2 * way + 1]
            if held[2 * way] == hashed:
                return start + way * _SLOT.size, full
            if full < soonest:
                best, soonest = way, full
        return start + best * _SLOT.size, 0.0
