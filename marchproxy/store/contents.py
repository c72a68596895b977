"""Contents of block lists: kept once under their SHA-256, never changed, and never removed.

A revision names contents by their hash. As every revision can be returned to, contents stay for as long as
the store does. They are compressed where that helps, and cut into pieces that are small beside what a
statement may hold.
"""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import TYPE_CHECKING

from marchproxy.model.blocklist import BlockContents, name_of, unpack
from marchproxy.model.errors import InvalidValue, NotFound
from marchproxy.model.snapshot import Snapshot
from marchproxy.store.database import Database
from marchproxy.store.errors import StoreCorrupt
from marchproxy.store.writer import insert

if TYPE_CHECKING:
    from pydal import DAL

PIECE = 1 << 19
"""Compressed bytes."""
_SAMPLE = 1 << 16

_KNOWN = "SELECT id FROM block_contents WHERE sha256 = ?"
_PIECES = "SELECT data FROM block_piece WHERE contents = ? ORDER BY number"


def write_contents(dal: "DAL", database: Database, packed: bytes) -> None:
    """Keep packed contents, unless they are known. Callers hold a writing transaction open."""
    name = name_of(packed)
    if database.query(_KNOWN, name):
        return
    owner = insert(dal.block_contents, sha256=name, size=len(packed))
    squeezed = zlib.compress(packed, 1 if _shrinks(packed) else 0)
    for number, start in enumerate(range(0, len(squeezed), PIECE), 1):
        data = b64encode(squeezed[start : start + PIECE]).decode("ascii")
        insert(dal.block_piece, contents=owner, number=number, data=data)


def _shrinks(packed: bytes) -> bool:
    """Whether compressing is worth its time, by a look at the middle: a third of a second for a million
    prefixes, which barely shrink where they are scattered.
    """
    middle = len(packed) // 2
    sample = packed[middle : middle + _SAMPLE]
    return len(zlib.compress(sample, 1)) < 0.8 * len(sample)


def read_contents(database: Database, sha256: str) -> BlockContents:
    """Contents by their hash, checked against it. Raises `NotFound` or `StoreCorrupt`.

    Callers hold a transaction open.
    """
    rows = database.query(_KNOWN, sha256)
    if not rows:
        raise missing(sha256)
    try:
        pieces = (b64decode(data, validate=True) for (data,) in database.query(_PIECES, rows[0][0]))
        packed = zlib.decompress(b"".join(pieces))
        if name_of(packed) != sha256:
            raise ValueError("they are not what their SHA-256 says")
        return unpack(packed)
    except (ValueError, zlib.error, InvalidValue) as error:
        raise StoreCorrupt(database.label, f"contents {sha256[:12]} of a block list: {error}") from error


def check_contents(database: Database, old: Snapshot, new: Snapshot) -> None:
    """Raise `NotFound` where a list names contents that are not kept here."""
    before = {item.sha256 for item in old.block_lists}
    wanted: Iterable[str] = sorted({item.sha256 for item in new.block_lists} - before)
    for sha256 in wanted:
        if not database.query(_KNOWN, sha256):
            raise missing(sha256)


def missing(sha256: str) -> NotFound:
    """What to say about contents that nobody has brought here."""
    return NotFound(
        "contents of a block list",
        sha256,
        hint="a file names contents by their SHA-256 only: marchproxy block import brings them here",
    )
