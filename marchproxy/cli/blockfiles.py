"""From a file of blocks to its contents, with a progress bar where somebody watches."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import InvalidFile, warn
from marchproxy.cli.otherhalf import OtherHalf, pieces
from marchproxy.model.blockfile import BlockReader, Reading
from marchproxy.model.errors import NotFound, NotPermitted

_GZIP = b"\x1f\x8b".decode("utf-8", "replace")
_BAR_FROM = 1 << 20
"""Bytes of a file from which on reading takes long enough to be watched."""


def read_file(environment: Environment, name: str, *, strict: bool) -> Reading:
    """Read the block list in the file `name`; `-` is stdin. Bad lines are told on stderr.

    Raises `NotFound`, `NotPermitted`, `InvalidFile` for a file without a single entry, and with `strict` for
    one with a bad line.
    """
    with _opened(environment, name) as file:
        reading = _read(environment, file, name)
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


def _read(environment: Environment, file: BinaryIO, name: str) -> Reading:
    size = None if name == "-" else _size(file)
    reader = BlockReader(datetime.now(UTC))
    first, begun = next(pieces(file), ([], 0))
    if first and first[0].startswith(_GZIP):
        raise InvalidFile(f"{name} is compressed", hint=f"zcat {name} | marchproxy block import -")
    reader.take(first)
    other = OtherHalf.begin(reader, Path(name), size) if size else None
    with other or nullcontext(), _progress(environment, size) as advance:
        advance(begun)
        for lines, read in pieces(file, other.start - begun if other else None):
            reader.take(lines)
            advance(2 * read if other else read)
        if other and not other.join(reader):
            for lines, _ in pieces(file):
                reader.take(lines)
    return reader.finish()


@contextmanager
def _opened(environment: Environment, name: str) -> Iterator[BinaryIO]:
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


def _size(file: BinaryIO) -> int | None:
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
    """A bar on stderr that is told of bytes that have been read; nothing where nobody looks at it."""
    if not environment.stderr.isatty() or (size is not None and size < _BAR_FROM):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=environment.stderr), transient=True) as progress:
        task = progress.add_task("reading", total=size)
        yield lambda read: progress.advance(task, read)
