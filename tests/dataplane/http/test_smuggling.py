"""Ways by which requests were smuggled past servers and proxies of others, as published: each is refused, and
what is hidden in it is nobody's request.

By the kinds of mistakes that the HTTP Garden lists (https://github.com/narfindustries/http-garden), and that
request smuggling began with (Linhart and others 2005, Kettle 2019). The bytes are ours.
"""

import pytest

from tests.dataplane.http.site import answer, ask, said, served
from tests.dataplane.http.test_vectors import read_all
from tests.dataplane.loops import looped

EVIL = "GET /here/evil HTTP/1.1\r\nHost: h\r\n\r\n"
FIELDS = {
    "length with underscore": "Content-Length: 1_0",
    "length with plus": "Content-Length: +5",
    "negative length": "Content-Length: -48",
    "hexadecimal length": "Content-Length: 0x5",
    "empty length": "Content-Length: ",
    "length with more behind": "Content-Length: 5Z",
    "empty length before another": "Content-Length: \r\nContent-Length: 36",
    "two lengths": "Content-Length: 1\r\nContent-Length: 0",
    "a list of lengths": "Content-Length: 5, 5",
    "space before the colon": "Content-Length : 36",
    "no colon": "Content-Length 36",
    "no-break space in a name": "Content-Length\x85: 36",
    "length with coding": "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "coding with length": "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "coding twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "empty coding before": "Transfer-Encoding: ,chunked",
    "another coding": "Transfer-Encoding: blegh",
    "a coding that only looks like it": "Transfer-Encoding: xchunked",
    "no-break space around a coding": "Transfer-Encoding: \xa0chunked\xa0",
    "vertical tab before a coding": "Transfer-Encoding: \x0bchunked",
    "quoted coding": 'Transfer-Encoding: "chunked"',
    "identity behind chunked": "Transfer-Encoding: chunked, identity",
    "a folded coding": "Transfer-Encoding:\r\n chunked",
    "a name over two lines": "Transfer-\r\nEncoding: chunked",
    "a folded value": "X-A: b\r\n Content-Length: 5",
    "CR in a value": "X-A: b\rContent-Length: 36",
    "LF at the end of a line": "X-A: b\nContent-Length: 36",
    "NUL in a value": "X-A: b\x00c",
    "an empty name": ": ignored",
    "no name and no value": ":",
    "a byte that is no ASCII in a name": "\xefoo: bar",
    "a parenthesis in a name": "X(A): b",
    "CR before any byte": "\rZContent-Length: 36",
}
LINES = {
    "a version of two digits": "GET / HTTP/1.32",
    "a large version": "GET / HTTP/4294967297.1",
    "CR in the version": "GET / HTTP/\r\r1.1",
    "LF for a space": "GET /\nHTTP/1.1",
    "two spaces": "GET /  HTTP/1.1",
    "a method that is no token": 'G=":<>(e) / HTTP/1.1',
    "a target that is none": "GET ! HTTP/1.1",
    "NUL for a method": "\x00 / HTTP/1.1",
    "a tab for a space": "GET\t/ HTTP/1.1",
}
CHUNKS = {
    "size with underscore": "0_2e\r\n",
    "size with 0x": "0x5\r\nhello\r\n0\r\n\r\n",
    "size with plus": "+5\r\nhello\r\n0\r\n\r\n",
    "negative size": "-5\r\nhello\r\n0\r\n\r\n",
    "empty size": "\r\n\r\n",
    "size with more behind": "5these bytes\r\nhello\r\n0\r\n\r\n",
    "space before the size": " 5\r\nhello\r\n0\r\n\r\n",
    "LF alone behind the size": "5\nhello\r\n0\r\n\r\n",
    "CR alone behind the size": "5\r;\r\nhello\r\n0\r\n\r\n",
    "two CR behind the size": "5\r\r\nhello\r\n0\r\n\r\n",
    "CR in an extension": "5;a=b\r\rX\r\nhello\r\n0\r\n\r\n",
    "LF in an extension": "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "an extension that is none": "5;\r\nhello\r\n0\r\n\r\n",
    "more than the size": "5\r\nhelloXX0\r\n\r\n",
    "a size that overflows": "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a trailer that is none": "0\r\nX\r\n\r\n",
    "a trailer with a space": "0\r\nX : y\r\n\r\n",
    "no size at all": "INVALID!!!\r\n",
}


def heads() -> list[tuple[str, str]]:
    """Requests whose head has two readings, with one hidden behind it."""
    made = [(name, f"POST /here HTTP/1.1\r\nHost: h\r\n{text}\r\n\r\n") for name, text in FIELDS.items()]
    return made + [(name, f"{text}\r\nHost: h\r\n\r\n") for name, text in LINES.items()]


@pytest.mark.parametrize(("name", "text"), heads())
def test_a_head_with_two_readings_is_no_request(name: str, text: str) -> None:
    found, why = read_all((text + EVIL).encode("latin-1"))
    assert not found
    assert why
    assert why != "incomplete"


@pytest.mark.parametrize(("name", "text"), CHUNKS.items())
def test_a_body_with_two_readings_is_none(name: str, text: str) -> None:
    head = "POST /here HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    found, why = read_all((head + text + EVIL).encode("latin-1"))
    assert not found
    assert why
    assert why != "incomplete"


@looped
async def test_nobody_behind_us_hears_of_any() -> None:
    async with served(answer()) as (at, backend):
        for _, text in heads():
            [(head, _)] = await ask(at, (text + EVIL).encode("latin-1"))
            assert head.split()[1] in ("400", "501", "505")
            assert said(head, "connection") == ["close"]
        assert not backend.heads
