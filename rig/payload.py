"""Bytes of known content: any length of them, and what they hash to."""

import hashlib
import random
from collections.abc import Iterator

BLOCK = random.Random(1).randbytes(1_048_573)
"""Repeated to any length. Its own is prime: no buffer size divides it, so swapped pieces change the hash."""


def payload(size: int) -> Iterator[bytes]:
    """`size` bytes in pieces."""
    whole, rest = divmod(size, len(BLOCK))
    for _ in range(whole):
        yield BLOCK
    yield BLOCK[:rest]


def digest(size: int) -> str:
    """SHA-256 of `payload(size)`, in hexadecimal."""
    hasher = hashlib.sha256()
    for piece in payload(size):
        hasher.update(piece)
    return hasher.hexdigest()
