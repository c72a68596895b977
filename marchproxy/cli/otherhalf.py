"""The second half of a large file of blocks, read by another process while this one reads the first.

It begins in the form that the file's first lines have. Where the first half turns out to end in another one,
what it read is thrown away.
"""

import os
import pickle
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

from marchproxy.model.blockfile import BlockReader, Part, TooManyEntries

WORTH_IT = 4 << 20
"""Bytes of a file from which on it takes less time together."""
_PIECE = 1 << 18
"""Bytes that are read at once."""


class OtherHalf:
    """The process, and what it reads."""

    def __init__(self, start: int, process: int, answer: BinaryIO) -> None:
        self.start = start
        """Where in the file its first line begins."""
        self._process = process
        self._answer = answer

    @classmethod
    def begin(cls, reader: BlockReader, path: Path, size: int) -> Self | None:
        """Have a child of this process read the second half of a file of `size` bytes; None: it is not worth
        it.
        """
        if size < WORTH_IT or (os.cpu_count() or 1) < 2:
            return None
        with path.open("rb") as file:
            file.seek(size // 2)
            file.readline()
            start = file.tell()
            if start >= size:
                return None
            out, into = os.pipe()
            try:
                process = os.fork()
            except OSError:
                # No more processes for this user: one reads it all.
                os.close(out)
                os.close(into)
                return None
            if not process:
                os.close(out)
                _read(reader.apart(), file, into)
        os.close(into)
        return cls(start, process, os.fdopen(out, "rb"))

    def join(self, reader: BlockReader) -> bool:
        """Have `reader`, which has read the first half, take it over; False: it has to read on by itself.

        Raises `TooManyEntries`.
        """
        with self._answer:
            raw = self._answer.read()
        part = pickle.loads(raw) if raw else None  # noqa: S301  (from our own child)
        return isinstance(part, Part) and reader.join(part)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The process does not outlive whoever waits for it."""
        self._answer.close()
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)


def pieces(file: BinaryIO, size: int | None = None) -> Iterator[tuple[list[str], int]]:
    """Whole lines, and how many bytes they were: those of the next `size` bytes, or all that follow.

    Many at once: a million steps of a generator would take longer than reading.
    """
    left = sys.maxsize if size is None else size
    while raw := file.read(min(_PIECE, left)):
        if not raw.endswith(b"\n"):
            raw += file.readline()
        left = max(0, left - len(raw))
        yield raw.decode("utf-8", "replace").removesuffix("\n").split("\n"), len(raw)


def _read(reader: BlockReader, file: BinaryIO, into: int) -> None:
    """What the child does; it never returns. An answer that is missing says that it failed."""
    try:
        for lines, _ in pieces(file):
            reader.take(lines)
        with os.fdopen(into, "wb") as stream:
            pickle.dump(reader.part(), stream, pickle.HIGHEST_PROTOCOL)
    except (OSError, TooManyEntries, KeyboardInterrupt, MemoryError):
        pass
    finally:
        os._exit(0)
