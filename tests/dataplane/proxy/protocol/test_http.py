"""The explicit HTTP proxy, as conversations."""

from base64 import b64encode
from ipaddress import ip_address

import pytest
from hypothesis import given

from marchproxy.dataplane.proxy.protocol.admission import DEADLINE
from marchproxy.dataplane.proxy.protocol.exchange import (
    MAX_AHEAD,
    Ask,
    Close,
    Ended,
    Received,
    Relay,
    Request,
    Send,
    Speech,
    Unfit,
    WakeAt,
)
from marchproxy.dataplane.proxy.protocol.http import HttpLayer
from marchproxy.model.presented import Presented
from marchproxy.model.reason import Reason
from tests.dataplane.proxy.protocol.conversation import (
    BEGIN,
    OPENED,
    Conversation,
    check_pieces,
    hostile,
    said,
    single,
)

CONNECT = b"CONNECT Example.com.:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"
GET = b"GET http://example.com/a?b=c HTTP/1.1\r\nHost: example.com\r\n\r\n"


def status(conversation: Conversation) -> int:
    return int(conversation.sent.split(b" ")[1])


def forwarded(data: bytes) -> Conversation:
    conversation = said(HttpLayer(), data)
    assert conversation.asked, conversation.sent
    conversation.hear(OPENED)
    return conversation


def test_connect_is_asked_about_answered_and_becomes_a_relay() -> None:
    conversation = Conversation(HttpLayer())
    assert conversation.wake_at == BEGIN + DEADLINE
    assert conversation.say(CONNECT[:20]) == []
    asked = Ask(Request(Speech.CONNECT, "example.com", 443))
    assert conversation.say(CONNECT[20:]) == [WakeAt(None), asked]
    answer = Send(b"HTTP/1.1 200 Connection established\r\n\r\n")
    assert conversation.hear(OPENED) == [answer, Relay()]


def test_what_was_pipelined_behind_connect_goes_upstream_first() -> None:
    conversation = said(HttpLayer(), CONNECT + b"\x16\x03")
    conversation.say(b"\x01\r\n\r\n")
    conversation.hear(OPENED)
    assert conversation.upstream == b"\x16\x03\x01\r\n\r\n"
    assert conversation.bound is None


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [
        (b"192.0.2.7:22", "192.0.2.7", 22),
        (b"[2001:db8::7]:8443", "2001:db8::7", 8443),
        (b"[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1", 1),
    ],
)
def test_connect_names_addresses_too(target: bytes, host: str, port: int) -> None:
    conversation = said(HttpLayer(), b"CONNECT " + target + b" HTTP/1.0\r\n\r\n")
    assert conversation.asked == [Request(Speech.CONNECT, ip_address(host), port)]


def test_a_request_in_absolute_form_is_forwarded_in_origin_form() -> None:
    conversation = forwarded(
        b"POST HTTP://Example.com:8080/a?b=c HTTP/1.1\r\nHost: example.com:8080\r\nProxy-Connection: x\r\n"
        b"Proxy-Authorization: Bearer s3cret\r\nConnection: Foo, keep-alive\r\nfoo: 1\r\nKeep-Alive: 5\r\n"
        b"TE: trailers\r\nX-Name: J\xfcrgen\r\nContent-Length: 5\r\n\r\nabcdeGET http://x/ HTTP/1.1\r\n\r\n"
    )
    assert conversation.asked == [Request(Speech.FORWARD, "example.com", 8080, Presented("s3cret"))]
    assert conversation.sent == b""
    assert conversation.upstream == (
        b"POST /a?b=c HTTP/1.1\r\nHost: example.com:8080\r\nX-Name: J\xfcrgen\r\nContent-Length: 5\r\n"
        b"Via: 1.1 marchproxy\r\nConnection: close\r\n\r\nabcde"
    )


@pytest.mark.parametrize(
    ("line", "first"),
    [
        (b"GET http://h HTTP/1.1", b"GET / HTTP/1.1"),
        (b"GET http://h?q HTTP/1.1", b"GET /?q HTTP/1.1"),
        (b"OPTIONS http://h HTTP/1.1", b"OPTIONS * HTTP/1.1"),
        (b"PATCH http://h/http://i/@x HTTP/1.0", b"PATCH /http://i/@x HTTP/1.0"),
    ],
)
def test_every_form_of_path_keeps_its_meaning(line: bytes, first: bytes) -> None:
    conversation = forwarded(line + b"\r\nHost: h\r\n\r\n")
    assert conversation.upstream is not None
    assert conversation.upstream.split(b"\r\n")[0] == first


def test_a_second_request_behind_the_first_is_never_forwarded() -> None:
    conversation = forwarded(GET + GET)
    conversation.say(GET)
    assert conversation.upstream is not None
    assert conversation.upstream.count(b"GET") == 1
    assert conversation.upstream.endswith(b"\r\nConnection: close\r\n\r\n")


def test_a_chunked_body_ends_where_its_framing_says() -> None:
    head = b"POST http://h/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n"
    conversation = forwarded(head + b"3\r\nab")
    conversation.say(b"c\r\n0\r\n\r\nGET http://i/ HTTP/1.1\r\n")
    assert conversation.upstream is not None
    head, _, body = conversation.upstream.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: Chunked" in head
    assert body == b"3\r\nabc\r\n0\r\n\r\n"


def test_a_websocket_is_let_through_once_the_server_has_switched() -> None:
    head = b"GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    conversation = forwarded(head + b"Sec-WebSocket-Version: 13\r\n\r\n")
    assert conversation.upstream is not None
    assert conversation.upstream.endswith(
        b"13\r\nVia: 1.1 marchproxy\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert conversation.bound is not None
    free = [conversation.bound.free]
    for answer in (b"HTTP/1.1 ", b"101 Switching Protocols\r\n\r\n"):
        conversation.bound.answered(answer)
        free.append(conversation.bound.free)
    assert free == [False, False, True]
    conversation.say(b"\x81\x00")
    assert conversation.upstream.endswith(b"\r\n\r\n\x81\x00")


def test_a_websocket_that_the_server_refused_is_no_tunnel() -> None:
    head = b"GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    conversation = forwarded(head)
    assert conversation.bound is not None
    conversation.bound.answered(b"HTTP/1.1 426 Upgrade Required\r\nX: HTTP/1.1 101 \r\n\r\n")
    with pytest.raises(Unfit, match="switched"):
        conversation.say(GET)
    early = said(HttpLayer(), head + b"\x81\x00")
    early.hear(OPENED)
    assert (status(early), early.reason()) == (400, Reason.MALFORMED)


def test_other_protocols_are_not_switched_to() -> None:
    head = b"GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    conversation = forwarded(head + b"HTTP2-Settings: AAMAAABk\r\n\r\n")
    assert (
        conversation.upstream
        == b"GET / HTTP/1.1\r\nHost: h\r\nVia: 1.1 marchproxy\r\nConnection: close\r\n\r\n"
    )


def test_who_sends_too_much_before_an_answer_is_refused_and_nothing_is_kept() -> None:
    conversation = said(HttpLayer(), CONNECT)
    for _ in range(MAX_AHEAD // 1024):
        conversation.say(bytes(1024))
    assert conversation.closed is None
    conversation.say(b"x")
    assert (status(conversation), conversation.reason()) == (400, Reason.MALFORMED)


def test_too_much_is_too_much_in_whatever_pieces() -> None:
    for size in (MAX_AHEAD, MAX_AHEAD + 1):
        data = CONNECT + bytes(size)
        check_pieces(HttpLayer, [data[start : start + 9_000] for start in range(0, len(data), 9_000)])


def test_who_is_slow_is_told_so() -> None:
    conversation = said(HttpLayer(), CONNECT[:-1])
    conversation.now += DEADLINE - 0.1
    conversation.say(b"X")
    assert conversation.wake_at == BEGIN + DEADLINE
    conversation.wait()
    assert (status(conversation), conversation.reason()) == (408, Reason.TOO_SLOW)


def test_who_leaves_without_a_word_is_no_error_and_within_a_request_is() -> None:
    assert Conversation(HttpLayer()).hear(Ended()) == [Close(Reason.CLOSED)]
    conversation = said(HttpLayer(), CONNECT[:-1])
    conversation.hear(Ended())
    assert (status(conversation), conversation.reason()) == (400, Reason.MALFORMED)


def test_after_the_question_only_its_answer_counts() -> None:
    conversation = said(HttpLayer(), CONNECT)
    assert conversation.hear(Ended()) == []
    conversation.hear(OPENED)
    assert conversation.layer.handle(Received(b"x"), BEGIN) == []


def test_a_refusal_names_what_was_asked_its_reason_and_detail() -> None:
    answer = said(HttpLayer(), CONNECT).refuse(Reason.NO_MAPPING, "nothing for\r\nX-Evil: 1")
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 403 Forbidden\r\nX-MarchProxy-Reason: NO_MAPPING\r\n")
    assert "example.com:443" in body
    assert "nothing for??X-Evil: 1" in body
    assert f"Content-Length: {len(body)}\r\n" in head


def test_an_answer_to_head_has_no_body() -> None:
    answer = said(HttpLayer(), GET.replace(b"GET", b"HEAD", 1)).refuse(Reason.NO_MAPPING)
    assert answer.endswith(b"\r\n\r\n")


BASIC = b"CONNECT h:1 HTTP/1.0\r\nProxy-Authorization: Basic %b\r\n\r\n"


def test_credentials_come_as_basic_or_bearer() -> None:
    basic = said(HttpLayer(), BASIC % b64encode(b"web:t:k"))
    assert basic.asked[0].credential == Presented("t:k", "web")
    bearer = said(HttpLayer(), b"CONNECT h:1 HTTP/1.0\r\nproxy-authorization: bEaReR  abc\r\n\r\n")
    assert bearer.asked[0].credential == Presented("abc")


@pytest.mark.parametrize("pair", [b"web", b"web:", b"web:a\0b", b"web:a\nb", b"we b:a", b"all:a", b"\xff:a"])
def test_a_malformed_credential_is_asked_for_again(pair: bytes) -> None:
    conversation = said(HttpLayer(), BASIC % b64encode(pair))
    assert (status(conversation), conversation.reason()) == (407, Reason.AUTH_INVALID)
    assert b'\r\nProxy-Authenticate: Basic realm="MarchProxy"' in conversation.sent
    assert pair.hex() not in conversation.sent.hex()


def request(*lines: bytes) -> bytes:
    return b"\r\n".join((b"POST http://h/ HTTP/1.1", *lines, b"", b""))


REFUSED = {
    400: [
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET https://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http:///x HTTP/1.1\r\nHost: \r\n\r\n",
        b"GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http://h/#f HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http://h:/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http://h:0/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http://h\\i/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http://0x7f000001/ HTTP/1.1\r\nHost: 0x7f000001\r\n\r\n",
        b"GET http://127.1/ HTTP/1.1\r\nHost: 127.1\r\n\r\n",
        b"GET  http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http://h/ HTTP/1.1 \r\nHost: h\r\n\r\n",
        b"GET http://h/\xc3\xbc HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\r\nGET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http://h/ HTTP/1.1\nHost: h\n\n",
        b"GET http://h/ HTTP/1.1\r\nHost: h\r\n\n",
        b"connect h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"CONNECT h HTTP/1.1\r\nHost: h\r\n\r\n",
        b"CONNECT h:70000 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"CONNECT h:080 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"CONNECT ::1:80 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"CONNECT [fe80::1%eth0]:80 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"CONNECT http://h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\nContent-Length: 5\r\n\r\n",
        b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"CONNECT h:1 HTTP/1.1\r\nHost: i:1\r\n\r\n",
        b"CONNECT h:1 HTTP/1.1\r\nHost: h:2\r\n\r\n",
        request(),
        request(b"Host: h", b"Host: h"),
        request(b"Host: i"),
        request(b"Host: h:8080"),
        request(b"Host : h"),
        request(b"Host: h", b" folded: 1"),
        request(b"Host: h", b"X: a\0b"),
        request(b"Host: h", b"X: a\x7fb"),
        request(b"Host: h", b"X: a\rContent-Length: 1"),
        request(b"Host: h", b"X: a\nContent-Length: 1"),
        request(b"Host: h", b": no name"),
        request(b"Host: h", b"no colon"),
        request(b"Host: h", b"Content-Length: 1", b"Content-Length: 1"),
        request(b"Host: h", b"Content-Length: 1", b"content-length: 2"),
        request(b"Host: h", b"Content-Length: 1, 1"),
        request(b"Host: h", b"Content-Length: +1"),
        request(b"Host: h", b"Content-Length: 0x1"),
        request(b"Host: h", b"Content-Length: -1"),
        request(b"Host: h", b"Content-Length: "),
        request(b"Host: h", b"Content-Length: 9999999999999999999"),
        request(b"Host: h", b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        request(b"Host: h", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        request(b"Host: h", b"Transfer_Encoding: chunked"),
        request(b"Host: h", b"Connection: close, Content-Length", b"Content-Length: 5"),
        request(b"Host: h", b"Connection: host"),
        b"POST http://h/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    414: [b"GET http://h/" + b"a" * 8192],
    431: [request(b"Host: h", b"X: " + b"a" * 32_768), b"GET http://h/ HTTP/1.1\r\n" + b"X: y\r\n" * 6000],
    501: [
        request(b"Host: h", b"Transfer-Encoding: gzip, chunked"),
        request(b"Host: h", b"Transfer-Encoding: xchunked"),
        b"TRACE http://h/ HTTP/1.1\r\nHost: h\r\nMax-Forwards: 1\r\n\r\n",
    ],
    505: [b"PRI * HTTP/2.0\r\n\r\n", b"GET http://h/ HTTP/1.2\r\nHost: h\r\n\r\n"],
}
NASTY = [(code, data) for code, requests in REFUSED.items() for data in requests]


@pytest.mark.parametrize(("code", "data"), NASTY, ids=[f"{code}-{data[:60]!r}" for code, data in NASTY])
def test_what_could_be_understood_in_two_ways_is_refused(code: int, data: bytes) -> None:
    conversation = said(HttpLayer(), data)
    assert conversation.asked == []
    assert status(conversation) == code
    assert conversation.reason() in (Reason.MALFORMED, Reason.UNSUPPORTED)
    check_pieces(HttpLayer, single(data)[:10_000])


def test_a_plain_request_is_told_that_this_is_a_proxy() -> None:
    conversation = said(HttpLayer(), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"this is a proxy and no web server" in conversation.sent


SEEDS = [
    CONNECT,
    GET,
    request(b"Host: h", b"Content-Length: 3") + b"abc",
    request(b"Host: h", b"Transfer-Encoding: chunked") + b"3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n",
    request(b"Host: h", b"Connection: Upgrade", b"Upgrade: websocket"),
    BASIC % b64encode(b"web:token"),
]


@pytest.mark.parametrize("data", SEEDS)
def test_what_is_right_may_come_byte_by_byte(data: bytes) -> None:
    check_pieces(HttpLayer, single(data))


@given(hostile(SEEDS))
def test_any_bytes_in_any_pieces_come_to_the_same(pieces: list[bytes]) -> None:
    check_pieces(HttpLayer, pieces)
