"""A file of JSON lines on this machine, which is moved away when it has grown, by us or by somebody else."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from marchproxy.telemetry.logs.jsonlines import encode
from marchproxy.telemetry.logs.records import Record
from marchproxy.telemetry.logs.sink import Unreachable

BATCH = 1000
LINGER = 0.25
"""Seconds until fewer are written, too."""
LARGEST = 64 * 1024 * 1024
"""Bytes from which on a file is moved away."""
KEPT = 9
"""Files that were moved away, `.1` the newest of them."""


class JsonFile:
    """A `Delivery`. It is written in a thread of its own: a slow disk keeps nobody waiting.

    Each batch is whole or not there at all, also where the disk is full. A file that was moved or removed
    (logrotate's `create` needs no signal) is made anew with the next batch.
    """

    most = BATCH
    linger = LINGER

    def __init__(self, path: Path, *, largest: int = LARGEST, kept: int = KEPT) -> None:
        self._path = path
        self._largest = largest
        self._kept = kept
        self._descriptor: int | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="log-file")

    async def send(self, records: Sequence[Record]) -> int:
        """See `Delivery`."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, records)
        except OSError as error:
            raise Unreachable(f"{self._path}: {error.strerror or error}") from error
        return 0

    @property
    def held(self) -> int:
        """See `Delivery`."""
        return 0

    @property
    def unsettled(self) -> bool:
        """See `Delivery`. What was written is there."""
        return False

    async def close(self) -> int:
        """See `Delivery`."""
        # Behind what is being written: the number of a closed descriptor may soon be another file's.
        self._thread.submit(self._let_go)
        self._thread.shutdown(wait=False)
        return 0

    def _write(self, records: Sequence[Record]) -> None:
        """All of them. Raises `OSError`, and none is there. In the thread."""
        descriptor = self._open()
        size = os.fstat(descriptor).st_size
        rest = memoryview(encode(records))
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError:
            # They are sent again, and half a line would spoil the next one.
            with suppress(OSError):
                os.ftruncate(descriptor, size)
            self._let_go()
            raise

    def _open(self) -> int:
        if self._descriptor is not None:
            held = os.fstat(self._descriptor)
            try:
                named = os.stat(self._path)
            except FileNotFoundError:
                named = None
            moved = named is None or (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino)
            if not moved and held.st_size < self._largest:
                return self._descriptor
            self._let_go()
            if not moved:
                self._rotate()
        self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        # Requests say who visited what: for the service's user and group. No link leads elsewhere.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        self._descriptor = os.open(self._path, flags, 0o640)
        if os.fstat(self._descriptor).st_size >= self._largest:
            self._let_go()
            self._rotate()
            self._descriptor = os.open(self._path, flags, 0o640)
        return self._descriptor

    def _rotate(self) -> None:
        """Make room under the file's own name; the oldest is gone."""
        names = [self._path, *(Path(f"{self._path}.{number}") for number in range(1, self._kept + 1))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            with suppress(FileNotFoundError):
                newer.replace(older)

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
