"""Heads of HTTP/2 and HTTP/3: one reading, or none."""

import base64
from dataclasses import replace
from http import HTTPStatus
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marchproxy.dataplane.http import requests
from marchproxy.dataplane.http.fields import about_client
from marchproxy.dataplane.http.messages import Request
from marchproxy.dataplane.http.pseudofields import (
    raw_fields,
    read_request,
    read_response,
    read_trailers,
    write_request,
    write_response,
)
from marchproxy.dataplane.http.requests import host_of
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.dataplane.proxy.protocol.http_head import HttpUnfit
from marchproxy.model.endpoint import Endpoint

PLACE = Endpoint(ip_address("10.0.0.1"), 80)

type Raw = list[tuple[bytes, bytes]]

GET: Raw = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"H.example"), (b":path", b"/a?b")]
POST: Raw = [(b":method", b"POST"), *GET[1:]]
CONNECT: Raw = [(b":method", b"CONNECT"), *GET[1:], (b":protocol", b"websocket")]


def but(name: bytes, value: bytes) -> Raw:
    """`GET` with another value of a pseudo-field."""
    return [(known, value if known == name else old) for known, old in GET]


def test_a_request_says_what_one_of_http_1_does() -> None:
    request = read_request([*GET, (b"accept", b"*/*"), (b"x-real-ip", b"1")], "2", ends=True)
    said = "GET /a?b HTTP/1.1\r\nHost: H.example\r\naccept: */*\r\n\r\n"
    assert request == replace(requests.read_request(said.encode()), version="2")


def test_a_body_has_the_length_it_declares_or_one_known_at_its_end() -> None:
    assert read_request(POST, "2", ends=False).length is None
    assert read_request([*POST, (b"content-length", b"12")], "2", ends=False).length == 12
    assert read_request([*POST, (b"content-length", b"0")], "2", ends=True).length == 0


def test_cookies_are_one_field_again() -> None:
    request = read_request([*GET, (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")], "2", ends=True)
    assert request.fields == (("x", "y"), ("cookie", "a=1; b=2"))


def test_a_websocket_is_asked_for_as_in_http_1() -> None:
    raw = [*CONNECT, (b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"theirs")]
    request = read_request(raw, "2", ends=False)
    assert (request.method, request.websocket, request.length) == ("GET", True, 0)
    fields = dict(request.fields)
    assert fields["sec-websocket-version"] == "13"
    assert len(base64.b64decode(fields["sec-websocket-key"])) == 16
    assert b"upgrade: websocket\r\n" in requests.write_request(request, (), PLACE)


@pytest.mark.parametrize(
    "raw",
    [
        [],
        GET[1:],
        [GET[0], *GET[2:]],
        [*GET[:2], GET[3]],
        GET[:3],
        [*GET, GET[0]],
        [*GET, (b":what", b"x")],
        [*GET, (b":status", b"200")],
        [*GET[:3], (b"accept", b"*/*"), GET[3]],
        [*GET, (b"", b"x")],
        [*GET, (b"Accept", b"x")],
        [*GET, (b"a b", b"x")],
        [*GET, (b"a\r\nb", b"x")],
        [*GET, (b"a:", b"x")],
        [*GET, (b"a", b"x\r\nb: c")],
        [*GET, (b"a", b"x\ny")],
        [*GET, (b"a", b"x\0")],
        [*GET, (b"a", b" x")],
        [*GET, (b"a", b"x\t")],
        [*GET, (b"connection", b"close")],
        [*GET, (b"keep-alive", b"1")],
        [*GET, (b"proxy-connection", b"close")],
        [*GET, (b"upgrade", b"h2c")],
        [*GET, (b"te", b"gzip")],
        [*POST, (b"transfer-encoding", b"chunked")],
        [*POST, (b"transfer_encoding", b"chunked")],
        [*POST, (b"content_length", b"3")],
        [*POST, (b"content-length", b"3"), (b"content-length", b"3")],
        [*POST, (b"content-length", b"3"), (b"content_length", b"4")],
        [*POST, (b"content-length", b"+3")],
        [*POST, (b"content-length", b"")],
        [*POST, (b"content-length", b"3, 3")],
        [*GET, (b"host", b"other.example")],
        [*GET, (b"host", b"h.example"), (b"host", b"h.example")],
        but(b":authority", b""),
        but(b":authority", b"user@h.example"),
        but(b":authority", b"h.example/evil"),
        but(b":authority", b"h.example:0"),
        but(b":authority", b"h.example\r\nx: y"),
        but(b":scheme", b"ftp"),
        but(b":scheme", b"http://x/"),
        but(b":method", b""),
        but(b":method", b"GET /evil HTTP/1.1"),
        but(b":method", b"GET\r\n"),
        but(b":path", b""),
        but(b":path", b"*"),
        but(b":path", b"a"),
        but(b":path", b"http://other.example/"),
        but(b":path", b"/a b"),
        but(b":path", b"/a HTTP/1.1\r\nx: y"),
        but(b":path", b"/a/../b"),
        but(b":path", b"/a#b"),
        but(b":path", b"/\xe4"),
        but(b":method", b"CONNECT"),
        but(b":method", b"TRACE"),
        [*GET, (b":protocol", b"websocket")],
        [*CONNECT[:-1], (b":protocol", b"connect-udp")],
        [(b":method", b"CONNECT"), (b":authority", b"h.example:443")],
    ],
)
def test_what_has_two_readings_is_refused(raw: Raw) -> None:
    with pytest.raises(Unfit):
        read_request(raw, "2", ends=False)


def test_a_body_that_was_announced_has_to_come() -> None:
    with pytest.raises(Unfit):
        read_request([*POST, (b"content-length", b"3")], "2", ends=True)
    with pytest.raises(Unfit):
        read_response([(b":status", b"200"), (b"content-length", b"3")], "GET", ends=True)


def test_too_much_has_a_status_of_its_own() -> None:
    with pytest.raises(HttpUnfit) as caught:
        read_request([*GET, *[(b"a", b"b" * 100)] * 300], "2", ends=True)
    assert caught.value.status is HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    with pytest.raises(HttpUnfit) as caught:
        read_request(but(b":path", b"/" * 9000), "2", ends=True)
    assert caught.value.status is HTTPStatus.REQUEST_URI_TOO_LONG


def test_host_may_stand_for_the_authority() -> None:
    request = read_request([*GET[:2], GET[3], (b"host", b"h.example:8080")], "3", ends=True)
    assert (request.authority, request.host, request.fields) == ("h.example:8080", "h.example", ())


def test_a_request_for_a_backend() -> None:
    request = read_request([*POST, (b"te", b"trailers"), (b"content-length", b"4")], "2", ends=False)
    assert raw_fields(write_request(request, "http", (("via", "2 x"),), PLACE)) == [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        *POST[2:],
        (b"via", b"2 x"),
        (b"content-length", b"4"),
        (b"te", b"trailers"),
    ]


def test_answers_there_and_back() -> None:
    raw = [(b":status", b"200"), (b"content-length", b"3"), (b"server", b"x"), (b"x-marchproxy-reason", b"y")]
    response = read_response(raw, "GET", ends=False)
    assert (response.status, response.length, response.bodiless) == (200, 3, False)
    assert write_response(response) == ((":status", "200"), ("server", "x"), ("content-length", "3"))
    assert read_response(raw, "HEAD", ends=True).bodiless
    assert read_response([(b":status", b"204")], "GET", ends=True).bodiless
    assert read_response([(b":status", b"200")], "GET", ends=True).length == 0
    assert read_response([(b":status", b"103"), (b"link", b"</x>")], "GET", ends=False).interim


@pytest.mark.parametrize(
    "raw",
    [
        [],
        [(b":status", b"101")],
        [(b":status", b"20")],
        [(b":status", b"200"), (b":path", b"/")],
        [(b":status", b"200"), (b"connection", b"close")],
        [(b":status", b"200"), (b"a", b"b\r\nc: d")],
    ],
)
def test_answers_with_two_readings_are_refused(raw: Raw) -> None:
    with pytest.raises(Unfit):
        read_response(raw, "GET", ends=False)


def test_trailers_have_no_pseudo_fields_and_nothing_of_the_head() -> None:
    assert read_trailers([(b"grpc-status", b"0"), (b"host", b"x")]) == (("grpc-status", "0"),)
    with pytest.raises(Unfit):
        read_trailers([(b":path", b"/")])


PIECES = st.one_of(
    st.binary(max_size=6), st.sampled_from([b"\r\n", b"\n", b": ", b"h.example", b"/a", b"GET"])
)
TEXT = st.lists(PIECES, max_size=3).map(b"".join)
NAMES = st.one_of(st.sampled_from([b"host", b"te", b"content-length", b"cookie", b"x", b":path"]), TEXT)


@settings(max_examples=300, database=None)
@given(
    values=st.tuples(
        *[st.one_of(st.just(value), TEXT) for _, value in GET],
    ),
    more=st.lists(st.tuples(NAMES, TEXT), max_size=3),
)
def test_whatever_comes_it_reads_the_same_in_http_1(
    values: tuple[bytes, ...], more: list[tuple[bytes, bytes]]
) -> None:
    raw = [(name, value) for (name, _), value in zip(GET, values, strict=True)]
    try:
        request = read_request([*raw, *more], "2", ends=True)
    except Unfit:
        return
    again: Request = requests.read_request(
        requests.write_request(request, about_client("::1", "http", "", "2"), PLACE)
    )
    ours = {"via", "forwarded"}
    assert (again.method, again.target, again.path) == (request.method, request.target, request.path)
    assert again.authority == request.authority
    assert again.host == host_of(request.authority)
    assert [each for each in again.fields if each[0] not in ours] == [
        each for each in request.fields if each[0] not in ours
    ]
