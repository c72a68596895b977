"""The test vectors of llhttp (Node.js) and of h11, read by us: nothing that they refuse is taken, and what is
taken here and there has the same bodies.
"""

import json
from pathlib import Path

import pytest

from marchproxy.dataplane.http.requests import body_of, read_request
from marchproxy.dataplane.http.responses import answer_length, read_response
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.dataplane.proxy.protocol.http_head import head_length

FOLDER = Path(__file__).parent / "vectors"
TAKEN = {
    "invalid: HTTP protocol and ANNOUNCE method": "any token is a method (RFC 9110 section 9.1)",
    "invalid: Invalid method": "any token is a method",
    "connection: No restart when keep-alive is off (1.0)": "what comes after the last request is not read",
    "connection: empty_request": "an empty line before a request is passed over (RFC 9112 section 2.2)",
    "fuzz: afl-server-examples/3": "the same behind a body",
}
"""What they refuse and we take."""
REFUSED = (
    "the first line is not METHOD TARGET HTTP/VERSION",  # HTTP/0.9, RTSP, ICE; more behind `close`
    "the path has dot segments, or characters that have to be escaped",  # M-SEARCH *
    "the destination is not a host name or an address",  # Host: 0.0.0.0=5000
    "the header Host names another host than the request",
    "CONNECT is not for a web server",
    "the header transfer-encoding is given twice",
    "a header is not NAME: VALUE on one line",  # folded; a control character in a value
    "of transfer codings, chunked is taken",
    "a chunk does not begin with its size",  # spaces behind it
)
"""Why we refuse what they take."""


ANSWERS_REFUSED = (
    "the backend's answer is not HTTP/1.1",
    "of the backend's transfer codings, chunked is taken",
    "a line of the backend's answer ends without CR",
    "a chunk does not begin with its size",
)
"""RTSP, ICE, HTTP/0.9, an empty line before the answer; `chunked` that is not the last coding; bare line
feeds; spaces behind the size of a chunk."""


FURTHER = "more than was asked for"
"""Answers, or what stands behind a switch of protocols."""


def vectors(kind: str) -> list[tuple[str, str, str, list[str]]]:
    """Name, what is said, why it is refused there (empty: it is not), and the bodies that are found."""
    files = sorted(FOLDER.glob(f"*-{kind}*.json"))
    return [tuple(row) for file in files for row in json.loads(file.read_text())["vectors"]]


def named(said: str) -> bytes:
    """Most vectors name no host, without which nothing else would be looked at."""
    if "host:" not in said.lower():
        said = said.replace(" HTTP/1.1\r\n", " HTTP/1.1\r\nHost: h.example\r\n")
    return said.encode("latin-1")


def read_all(data: bytes) -> tuple[list[str], str]:
    """The bodies of the requests that are complete, and why there are no more: empty where that is all."""
    bodies: list[str] = []
    data = data.lstrip(b"\r\n")
    try:
        while data:
            length = head_length(bytearray(data), 0)
            if length is None:
                return bodies, "incomplete"
            request, got = read_request(data[:length]), bytearray()
            body, data = body_of(request), data[length:]
            while data and not body.done:
                data = data[body.feed(data, got.extend) :]
            if not body.done:
                return bodies, "incomplete"
            bodies.append(got.decode("latin-1"))
            if not request.keeps:
                break
            data = data.lstrip(b"\r\n")
    except Unfit as unfit:
        return bodies, unfit.detail
    return bodies, ""


def read_answer(data: bytes) -> tuple[str, str]:
    """The body of an answer, and what is wrong with it; empty: nothing."""
    got = bytearray()
    try:
        end = answer_length(data)
        if end is None:
            return "", "incomplete"
        rest = data[end:]
        _, body = read_response(data[:end], "GET")
        while rest and not body.done:
            rest = rest[body.feed(rest, got.extend) :]
    except Unfit as unfit:
        return "", unfit.detail
    return got.decode("latin-1"), FURTHER if rest else ""


@pytest.mark.parametrize(("name", "said", "error", "bodies"), vectors("requests"))
def test_requests_are_read_as_others_read_them(name: str, said: str, error: str, bodies: list[str]) -> None:
    found, why = read_all(named(said))
    if error:
        assert why or name in TAKEN
    elif why and why != "incomplete":
        assert why in REFUSED
        assert found == bodies[: len(found)]
    else:
        assert found == bodies


@pytest.mark.parametrize(("name", "said", "error", "bodies"), vectors("responses"))
def test_so_are_answers(name: str, said: str, error: str, bodies: list[str]) -> None:
    got, why = read_answer(said.encode("latin-1"))
    assert error or not why or why in (*ANSWERS_REFUSED, FURTHER)
    assert why or not error
    if bodies and why in ("", FURTHER):
        assert got == bodies[0]
