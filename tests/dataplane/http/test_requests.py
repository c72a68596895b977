"""Heads of requests."""

from ipaddress import ip_address

import pytest

from marchproxy.dataplane.http.bodies import Counted, Dechunked
from marchproxy.dataplane.http.requests import body_of, host_of, read_request, write_request
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.endpoint import Endpoint

PLACE = Endpoint(ip_address("10.2.0.2"), 8080)


def head(line: str, *fields: str) -> bytes:
    return "\r\n".join((line, *fields, "", "")).encode("latin-1")


def test_what_a_request_says() -> None:
    request = read_request(
        head(
            "POST /a/%62?q=1 HTTP/1.1",
            "Host: WWW.Example:8080",
            "Content-Length: 5",
            "TE: trailers",
            "X-A: b",
        )
    )
    assert (request.method, request.authority, request.host) == ("POST", "WWW.Example:8080", "www.example")
    assert (request.target, request.path) == ("/a/%62?q=1", "/a/b")
    assert (request.length, request.keeps, request.trailers) == (5, True, True)
    assert request.fields == (("x-a", "b"),)
    assert isinstance(body_of(request), Counted)


@pytest.mark.parametrize(
    ("line", "fields", "keeps"),
    [
        ("GET / HTTP/1.1", ["Host: h"], True),
        ("GET / HTTP/1.1", ["Host: h", "Connection: Close"], False),
        ("GET / HTTP/1.0", [], False),
        ("GET / HTTP/1.0", ["Connection: keep-alive"], True),
    ],
)
def test_whether_the_connection_goes_on(line: str, fields: list[str], keeps: bool) -> None:
    assert read_request(head(line, *fields)).keeps is keeps


def test_an_absolute_url_is_taken_where_host_agrees() -> None:
    request = read_request(head("GET http://h/a HTTP/1.1", "Host: H"))
    assert (request.host, request.target) == ("h", "/a")
    assert read_request(head("GET http://h HTTP/1.1", "Host: h")).target == "/"
    with pytest.raises(Unfit):
        read_request(head("GET http://i/a HTTP/1.1", "Host: h"))


def test_the_asterisk_is_for_options_alone() -> None:
    assert read_request(head("OPTIONS * HTTP/1.1", "Host: h")).path == "*"
    with pytest.raises(Unfit):
        read_request(head("GET * HTTP/1.1", "Host: h"))


def test_what_goes_to_the_backend() -> None:
    request = read_request(head("PUT /a HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", "X: y"))
    assert isinstance(body_of(request), Dechunked)
    written = write_request(request, (("via", "1.1 x"),), PLACE)
    assert (
        written == b"PUT /a HTTP/1.1\r\nhost: h\r\nx: y\r\nvia: 1.1 x\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    empty = write_request(read_request(head("POST /a HTTP/1.1", "Host: h")), (), PLACE)
    assert b"content-length: 0\r\n" in empty
    got = write_request(read_request(head("GET /a HTTP/1.1", "Host: h")), (), PLACE)
    assert b"content-length" not in got


def test_without_a_host_it_is_the_backend() -> None:
    written = write_request(read_request(head("GET /a HTTP/1.0")), (), PLACE)
    assert b"\r\nhost: 10.2.0.2:8080\r\n" in written


def test_hosts_without_their_ports() -> None:
    assert host_of("A.example:80") == "a.example"
    assert host_of("[2001:db8::1]:80") == "2001:db8::1"
    assert host_of("a.example.") == "a.example"
    assert host_of("") == ""
