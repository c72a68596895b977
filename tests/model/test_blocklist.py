"""Packed contents: equal means equal bytes, and nothing else is read."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.model.blocklist import (
    MAGIC,
    NOTHING,
    BlockContents,
    Entry,
    Note,
    from_keys,
    key_of,
    name_of,
    unpack,
)
from marchproxy.model.errors import InvalidValue

SOON = Note("soon over", datetime(2026, 6, 1, tzinfo=UTC))
NOTES = (NOTHING, Note("scanner"), SOON)


@st.composite
def entries(draw: st.DrawFn, bits: int) -> list[Entry]:
    """Prefixes, some of them twice or inside others."""
    made = []
    for _ in range(draw(st.integers(0, 20))):
        length = draw(st.integers(0, bits))
        top = draw(st.integers(0, (1 << length) - 1))
        made.append((top << (bits - length), length, draw(st.integers(0, 2))))
    return made + draw(st.lists(st.sampled_from(made), max_size=3)) if made else made


def contents_of(v4: list[Entry], v6: list[Entry], names: Sequence[tuple[str, int]] = ()) -> BlockContents:
    return from_keys([key_of(*entry) for entry in v4], [key_of(*entry) for entry in v6], names, NOTES)


@given(entries(32), entries(128))
def test_what_is_packed_is_what_is_unpacked(v4: list[Entry], v6: list[Entry]) -> None:
    contents = contents_of(v4, v6, [("ads.example", 1), ("*.bad.example", 0)])
    assert unpack(contents.pack()) == contents
    assert name_of(contents.pack()) == name_of(unpack(contents.pack()).pack())


@given(entries(32))
def test_nothing_that_is_said_gets_lost_and_nothing_is_said_twice(v4: list[Entry]) -> None:
    held = list(contents_of(v4, []).v4.entries())
    assert len(set(held)) == len(held)
    for entry in v4:
        assert any(covers(each, entry) and (each[2] != 2 or entry[2] == 2) for each in held)
    for each in held:
        assert not any(covers(other, each) for other in held if other != each and other[2] != 2)


@given(entries(32))
def test_nothing_is_inside_another_where_all_end_at_once(v4: list[Entry]) -> None:
    held = list(contents_of([(start, length, 2) for start, length, _ in v4], []).v4.entries())
    assert not any(covers(other, each) for each in held for other in held if other != each)


def covers(wide: Entry, inner: Entry) -> bool:
    """Of IPv4: whether one is inside the other, or is it."""
    (first, length, _), (start, longer, _) = wide, inner
    return length <= longer and first >> (32 - length) == start >> (32 - length)


def test_prefix_inside_one_that_expires_is_kept() -> None:
    outer, inner = (10 << 24, 8, 2), (10 << 24 | 1 << 8, 24, 0)
    assert list(contents_of([outer, inner], []).v4.entries()) == [outer, inner]
    lasting = (10 << 24, 8, 1)
    assert list(contents_of([lasting, inner], []).v4.entries()) == [lasting]


def test_entries_as_text_with_their_notes() -> None:
    contents = contents_of(
        [(0x0A000000, 8, 1), (0xC0000201, 32, 0)],
        [(0x20010DB8 << 96, 32, 2), (1 << 125, 128, 0)][::-1],
        [("ads.example", 0)],
    )
    assert list(contents.texts()) == [
        ("10.0.0.0/8", Note("scanner")),
        ("192.0.2.1", NOTHING),
        ("2000::", NOTHING),
        ("2001:db8::/32", SOON),
        ("ads.example", NOTHING),
    ]
    assert len(contents) == 5


GOOD = contents_of([(0x0A000000, 8, 1)], []).pack()


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"something else",
        MAGIC,
        GOOD[:-1],
        GOOD + b"\0",
        GOOD.replace(b'"v4":1', b'"v4":-1'),
        GOOD.replace(b'"v4":1', b'"v4":"x"'),
        GOOD.replace(b'"notes":[', b'"n":['),
        GOOD.replace(b"\x08", b"\x21"),
    ],
)
def test_damaged_contents_are_refused(damaged: bytes) -> None:
    with pytest.raises(InvalidValue, match="contents"):
        unpack(damaged)


def test_nothing_is_contents_too() -> None:
    assert len(BlockContents()) == 0
    assert unpack(BlockContents().pack()) == BlockContents()
