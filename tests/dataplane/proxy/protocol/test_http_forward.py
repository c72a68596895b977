"""A request's head as the server gets it."""

import pytest

from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.dataplane.proxy.protocol.http_forward import check_connection, rewrite_head
from marchproxy.dataplane.proxy.protocol.http_head import parse_head
from marchproxy.dataplane.proxy.protocol.http_target import read_target


def rewritten(head: bytes) -> bytes:
    parsed = parse_head(head)
    check_connection(parsed)
    return rewrite_head(parsed, read_target(parsed))


def test_what_is_for_the_proxy_alone_goes_no_further() -> None:
    assert rewritten(
        b"GET http://[2001:DB8::1]:81/x HTTP/1.1\r\nPROXY-Authorization: Bearer t\r\nProxy-Foo: 1\r\n"
        b"hOST: [2001:db8::1]:81\r\nUpgrade: h2c\r\nKeep-Alive: 1\r\nTE: x\r\nConnection: X-One , te\r\n"
        b"Connection: x-two\r\nx-one: 1\r\nX-TWO: 2\r\nVia: 1.0 other\r\nAccept:  */* \r\n\r\n"
    ) == (
        b"GET /x HTTP/1.1\r\nHost: [2001:db8::1]:81\r\nVia: 1.0 other\r\nAccept: */*\r\n"
        b"Via: 1.1 marchproxy\r\nConnection: close\r\n\r\n"
    )


def test_the_client_keeps_its_version_and_gets_a_host() -> None:
    lines = rewritten(b"GET http://Example.com:80 HTTP/1.0\r\n\r\n").split(b"\r\n")
    assert lines[:3] == [b"GET / HTTP/1.0", b"Host: example.com", b"Via: 1.0 marchproxy"]


@pytest.mark.parametrize("name", [b"Host", b"content-length", b"Transfer-Encoding"])
def test_connection_cannot_change_what_the_request_is(name: bytes) -> None:
    with pytest.raises(Unfit):
        rewritten(b"GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: a,\t" + name + b"\r\n\r\n")
