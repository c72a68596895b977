"""Fields in network byte order."""

import pytest

from marchproxy.dataplane.proxy.protocol.wire import Cursor, Truncated


def test_fields_are_read_in_order() -> None:
    cursor = Cursor(b"\x01\x02\x03\x00\x02ab-")
    assert (cursor.number(1), cursor.number(2)) == (1, 0x0203)
    inner = cursor.vector(2)
    assert (inner.take(2), inner.left, cursor.left) == (b"ab", 0, 1)
    inner.end()
    with pytest.raises(Truncated):
        cursor.end()


def test_nothing_is_read_beyond_the_end() -> None:
    with pytest.raises(Truncated):
        Cursor(b"a").take(2)
    with pytest.raises(Truncated):
        Cursor(b"a").number(2)
    with pytest.raises(Truncated):
        Cursor(b"\x00\x02a").vector(2)
