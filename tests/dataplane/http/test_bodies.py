"""Bodies out of their framing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.http.bodies import Body, Counted, Dechunked, UntilClose, chunk, last_chunk
from marchproxy.dataplane.proxy.protocol.exchange import Unfit


def read(body: Body, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """What was of the body, and what was not."""
    taken: list[bytes] = []
    rest = b""
    for piece in pieces:
        size = 0 if body.done else body.feed(piece, lambda data: taken.append(bytes(data)))
        rest += piece[size:]
    return b"".join(taken), rest


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.data())
def test_chunks_say_the_same_however_they_come(pieces: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(map(chunk, pieces)) + last_chunk((("x-sum", "6"),)) + b"next"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    split = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    body = Dechunked()
    assert read(body, split) == (b"".join(pieces), b"next")
    assert body.done
    assert body.trailers == (("x-sum", "6"),)


@given(st.binary(max_size=40), st.integers(0, 40))
def test_a_length_is_counted(data: bytes, length: int) -> None:
    body = Counted(length)
    assert read(body, [data]) == (data[:length], data[length:])
    assert body.done is (len(data) >= length)


def test_without_either_it_ends_with_its_connection() -> None:
    body = UntilClose()
    assert read(body, [b"a", b"b"]) == (b"ab", b"")
    assert not body.done


def test_broken_chunks_are_refused() -> None:
    with pytest.raises(Unfit):
        read(Dechunked(), [b"5\r\nhelloX\r\n"])


def test_nothing_behind_the_last_chunk() -> None:
    assert last_chunk(()) == b"0\r\n\r\n"
