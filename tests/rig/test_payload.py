"""Bytes of known content."""

import hashlib

import pytest

from rig.payload import BLOCK, digest, payload


@pytest.mark.parametrize("size", [0, 1, len(BLOCK) - 1, len(BLOCK), len(BLOCK) + 1, 3 * len(BLOCK) + 7])
def test_length_and_hash_agree(size: int) -> None:
    content = b"".join(payload(size))
    assert len(content) == size
    assert hashlib.sha256(content).hexdigest() == digest(size)


def test_no_usual_buffer_size_divides_the_block() -> None:
    assert all(len(BLOCK) % size for size in (2, 3, 5, 7, 11, 13, 1448, 1500, 4096, 65536))
