"""What clients have said early (0-RTT), so that nobody says it once more (RFC 8446 section 8.2): one table of
all processes that share ports, of a fixed size.

Each is remembered for as long as it could be taken again. Where two processes are asked at the same instant
one of them is, for a lock of the kernel's is on the place; who does not get it at once, or finds no room,
says that it was said before. That costs the client a round trip, and nothing else.
"""

import fcntl
import mmap
import os
import struct
import time
from hashlib import blake2b

SLOTS = 1 << 15
"""What is remembered at one time, some of it: at some 1,500 a second each has room for 20 s."""
WAYS = 8
"""Places where one may be."""
_HEAD = 48
"""Bytes: what the table is known by, and a secret."""
IDENTITY = 16
_SLOT = struct.Struct("=Qd")
"""Hash of what was said, and until when that matters: seconds of the machine's monotonic clock."""
_SET = WAYS * _SLOT.size
_WHOLE_SET = struct.Struct("=" + "Qd" * WAYS)
SIZE = _HEAD + SLOTS * _SLOT.size


def share() -> int:
    """A descriptor of a table for several processes."""
    descriptor = os.memfd_create("replays", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, SIZE)
    os.pwrite(descriptor, os.urandom(_HEAD), 0)
    return descriptor


class Replays:
    """The table."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Of `share`, and ours from now on; None: of this process alone."""
        self._descriptor = share() if descriptor is None else descriptor
        self._memory = mmap.mmap(self._descriptor, SIZE)
        self.identity = self._memory[:IDENTITY]
        """What no other table has: what was given out by who has another one is not in here."""
        self._secret = self._memory[IDENTITY:_HEAD]

    def first(self, said: bytes, seconds: float, now: float | None = None) -> bool:
        """Whether this is said for the first time; for so many seconds it is not any more."""
        now = time.monotonic() if now is None else now
        name = blake2b(said, digest_size=12, key=self._secret).digest()
        hashed = int.from_bytes(name[:8], "little")
        start = _HEAD + int.from_bytes(name[8:], "little") % (SLOTS // WAYS) * _SET
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _SET, start)
        except OSError:
            return False
        try:
            return self._enter(start, hashed, now, now + seconds)
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, _SET, start)

    def close(self) -> None:
        """Let go of it, once or more often."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._memory.close()
            os.close(descriptor)

    def _enter(self, start: int, hashed: int, now: float, until: float) -> bool:
        held = _WHOLE_SET.unpack_from(self._memory, start)
        free = None
        for way in range(WAYS):
            if held[2 * way + 1] <= now:
                free = way
            elif held[2 * way] == hashed:
                return False
        if free is None:
            return False
        _SLOT.pack_into(self._memory, start + free * _SLOT.size, hashed, until)
        return True
