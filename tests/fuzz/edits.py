"""What may happen to an input: edits that hypothesis draws, and can take away again."""

from dataclasses import dataclass

from hypothesis import strategies as st

LONGEST = 8192
"""Bytes of an input."""
TELLING = (
    *(
        b"\0",
        b"\xff",
        b"\x80",
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b":",
        b"=",
        b"-",
        b"/",
        b"*",
        b"%",
        b"%00",
        b"\\",
        b'"',
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"'",
        b"\xc3\xa9",
        b"\xe2\x80\xae",
        b"\xef\xbb\xbf",
        b"0x",
        b"1e999",
        b"-1",
    ),
    *(
        b"65536",
        b"4294967296",
        b"18446744073709551616",
        b"null",
        b"true",
        b"NaN",
        b"!!python/object",
        b"&a",
        b"*a",
    ),
    *(
        b"::",
        b"::ffff:",
        b"/129",
        b"0.0.0.0/0",
        b"..",
        b"\xff\xff\xff\xff",
        b"\x7f\xff",
        b" " * 40,
        b"A" * 300,
    ),
)
"""What parsers stumble over."""


@dataclass(frozen=True, slots=True)
class Edit:
    """At a place, as a share of the length: so many bytes go, and others come, so many times."""

    at: float
    removed: int
    added: bytes
    times: int = 1

    def apply(self, data: bytes) -> bytes:
        """The input with it made."""
        place = int(self.at * len(data))
        return (data[:place] + self.added * self.times + data[place + self.removed :])[:LONGEST]


def edits() -> st.SearchStrategy[list[Edit]]:
    """None to six."""
    added = st.one_of(st.just(b""), st.sampled_from(TELLING), st.binary(min_size=1, max_size=4))
    removed = st.sampled_from((0, 0, 1, 1, 2, 7, 64))
    times = st.sampled_from((1, 1, 1, 1, 2, 100))
    return st.lists(st.builds(Edit, st.floats(0, 1), removed, added, times), max_size=6)


def inputs(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of `seeds`, edited; or the beginning of one and the end of another; or anything."""

    def spliced(first: bytes, second: bytes, at: float) -> bytes:
        return first[: int(at * len(first))] + second[int(at * len(second)) :]

    start = st.sampled_from(seeds)
    mixed = st.one_of(start, start, start, st.builds(spliced, start, start, st.floats(0, 1)))

    def edited(data: bytes, made: list[Edit]) -> bytes:
        for edit in made:
            data = edit.apply(data)
        return data

    return st.one_of(st.builds(edited, mixed, edits()), st.binary(max_size=200))
