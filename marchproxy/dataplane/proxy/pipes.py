"""Pipes that bytes are spliced through: each is lent while data moves, and given back empty.

splice(2) moves pages between a socket and a pipe without copying them; both descriptors of a pipe are kept
for the next who needs one. Ten thousand idle connections share the few that are in use at one moment.
"""

import fcntl
import os
from contextlib import suppress
from typing import NamedTuple

PIPE_SIZE = 512 * 1024
"""Bytes that a pipe takes, where the user may have that much (pipe(7), `pipe-user-pages-soft`)."""
KEPT = 32
"""Idle pipes that stay open."""
LENT = 1024
"""Pipes lent at the same time: slow readers may each hold one. Whoever gets none copies."""


class Pipe(NamedTuple):
    """The descriptors of its two ends, both non-blocking."""

    out: int
    into: int


class Pipes:
    """Lends pipes."""

    def __init__(self, *, lent: int = LENT) -> None:
        self._idle: list[Pipe] = []
        self._limit = lent
        self.lent = 0
        """How many are out."""

    def take(self) -> Pipe | None:
        """An empty pipe; None: all are lent, or the process has no descriptors left."""
        if self.lent >= self._limit:
            return None
        if self._idle:
            pipe = self._idle.pop()
        else:
            try:
                pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
            except OSError:
                return None
            with suppress(OSError):
                fcntl.fcntl(pipe.into, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        self.lent += 1
        return pipe

    def give_back(self, pipe: Pipe, *, empty: bool = True) -> None:
        """Take a pipe back. One that still holds bytes is of no more use to anybody."""
        self.lent -= 1
        if empty and len(self._idle) < KEPT:
            self._idle.append(pipe)
        else:
            os.close(pipe.out)
            os.close(pipe.into)


PIPES = Pipes()
"""Those of this process."""
