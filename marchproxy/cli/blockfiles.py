"""From a file of blocks to its contents, with a progress bar where somebody watches."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import IO

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import InvalidFile, warn
from marchproxy.model.blockfile import Reading, read_blocks
from marchproxy.model.errors import NotFound, NotPermitted

_GZIP = b"\x1f\x8b"
_PIECE = 1 << 18
"""Bytes that are read at once."""
_BAR_FROM = 1 << 20
"""Bytes of a file from which on reading takes long enough to be watched."""


def read_file(environment: Environment, name: str, *, strict: bool) -> Reading:
    """Read the block list in the file `name`; `-` is stdin. Bad lines are told on stderr.

    Raises `NotFound`, `NotPermitted`, `InvalidFile` for a file without a single entry, and with `strict` for
    one with a bad line.
    """
    with _opened(environment, name) as file, _progress(environment, _size(file)) as advance:
        source = _Source(file)
        reading = read_blocks(source.lines(name), datetime.now(UTC), lambda _: advance(source.read))
    for bad in reading.bad:
        warn(environment, f"{name}, line {bad.number}: {bad.text!r} is left out", bad.why)
    hidden = reading.bad_lines - len(reading.bad)
    if hidden:
        warn(environment, f"{name}: {hidden} more lines are left out")
    if strict and reading.bad_lines:
        raise InvalidFile(
            f"{name}: {reading.bad_lines} bad lines, so nothing was imported",
            hint="without --strict the good ones are",
        )
    if not len(reading.contents) and reading.bad_lines:
        raise InvalidFile(f"{name}: not one line of {reading.bad_lines} is an address, prefix or host name")
    return reading


class _Source:
    """Lines of a file as text, and how many bytes of it have been read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.read = 0
        self._file = file

    def lines(self, name: str) -> Iterator[str]:
        return chain.from_iterable(self._pieces(name))

    def _pieces(self, name: str) -> Iterator[list[str]]:
        """Whole lines, many at once: a million steps of a generator would take longer than reading."""
        while raw := self._file.read(_PIECE) + self._file.readline():
            if not self.read and raw.startswith(_GZIP):
                raise InvalidFile(f"{name} is compressed", hint=f"zcat {name} | marchproxy block import -")
            self.read += len(raw)
            yield raw.decode("utf-8", "replace").removesuffix("\n").split("\n")


@contextmanager
def _opened(environment: Environment, name: str) -> Iterator[IO[bytes]]:
    if name == "-":
        yield environment.stdin.buffer
        return
    try:
        with Path(name).open("rb") as file:
            yield file
    except FileNotFoundError:
        raise NotFound("file", name) from None
    except PermissionError:
        raise NotPermitted(f"{name} may not be read", hint="run this as a user who may") from None
    except OSError as error:
        raise InvalidFile(f"{name}: {error.strerror}") from None
    except ValueError as error:
        raise InvalidFile(f"{name!r} is not the name of a file: {error}") from None


def _size(file: IO[bytes]) -> int | None:
    """Bytes, where that can be known beforehand."""
    try:
        here = file.tell()
        end = file.seek(0, io.SEEK_END)
        file.seek(here)
    except OSError:
        return None
    return end - here


@contextmanager
def _progress(environment: Environment, size: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr that is told how many bytes have been read; nothing where nobody looks at it."""
    if not environment.stderr.isatty() or (size is not None and size < _BAR_FROM):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=environment.stderr), transient=True) as progress:
        task = progress.add_task("reading", total=size)
        yield lambda read: progress.update(task, completed=read)
