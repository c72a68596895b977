"""Credentials on a mapping's own listener, as conversations."""

import pytest
from hypothesis import given

from marchproxy.dataplane.proxy.protocol.admission import DEADLINE
from marchproxy.dataplane.proxy.protocol.exchange import (
    Ask,
    Close,
    Ended,
    Relay,
    Request,
    Send,
    Speech,
    WakeAt,
)
from marchproxy.dataplane.proxy.protocol.preface import CHALLENGE, MAX_LINE, PATIENCE, PrefaceLayer
from marchproxy.model.presented import MAX_SECRET, Presented
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

OURS = Request(Speech.PREFACE, None, None, Presented("t0ken"))
FLEET = Request(Speech.FLEET, None, None, Presented("t0:ken", "web"))


@pytest.mark.parametrize("line", [b"MARCHPROXY/1 t0ken\n", b"MARCHPROXY/1 t0ken\r\n"])
def test_a_client_that_speaks_first_is_told_ok(line: bytes) -> None:
    conversation = Conversation(PrefaceLayer())
    assert conversation.say(line) == [WakeAt(None), Ask(OURS)]
    assert conversation.hear(OPENED) == [Send(b"OK\n"), Relay()]


def test_what_follows_the_line_goes_upstream_first() -> None:
    conversation = said(PrefaceLayer(), b"MARCHPROXY/1 t0ken\r\n\r\nSSH-")
    conversation.say(b"2.0\n")
    conversation.hear(OPENED)
    assert conversation.upstream == b"\r\nSSH-2.0\n"


def test_a_client_that_waits_is_challenged_as_the_fleet_s_do() -> None:
    conversation = Conversation(PrefaceLayer())
    assert conversation.wake_at == BEGIN + PATIENCE
    assert conversation.wait() == [Send(CHALLENGE), WakeAt(BEGIN + DEADLINE)]
    conversation.say(b"web:t0:ken\n")
    assert conversation.asked == [FLEET]
    assert conversation.hear(OPENED) == [Send(b"AUTH_OK\n"), Relay()]


def test_a_client_of_the_fleet_need_not_wait() -> None:
    conversation = said(PrefaceLayer(), b"web:t0:ken\nGET /")
    conversation.hear(OPENED)
    assert (conversation.asked, conversation.upstream) == ([FLEET], b"GET /")


def test_a_slow_client_of_ours_is_challenged_and_still_told_ok() -> None:
    conversation = Conversation(PrefaceLayer())
    conversation.wait()
    conversation.say(b"MARCHPROXY/1 t0ken\n")
    assert conversation.asked == [OURS]
    conversation.hear(OPENED)
    assert conversation.sent == CHALLENGE + b"OK\n"


def test_a_client_that_has_begun_is_not_challenged() -> None:
    conversation = said(PrefaceLayer(), b"M")
    assert conversation.wait() == [WakeAt(BEGIN + DEADLINE)]
    assert conversation.wait() == [
        Send(b"ERR TOO_SLOW\n"),
        Close(Reason.TOO_SLOW, "a request has to be complete within 10 seconds"),
    ]


@pytest.mark.parametrize("reason", [Reason.AUTH_INVALID, Reason.AUTH_EXPIRED, Reason.NO_BACKEND])
def test_a_refusal_is_said_in_the_client_s_own_form(reason: Reason) -> None:
    assert said(PrefaceLayer(), b"MARCHPROXY/1 t\n").refuse(reason) == f"ERR {reason.name}\n".encode()
    assert said(PrefaceLayer(), b"web:t\n").refuse(reason) == b"AUTH_FAILED\n"


def test_the_largest_secret_fits_and_no_larger() -> None:
    secret = b"x" * MAX_SECRET
    for line in (b"MARCHPROXY/1 " + secret + b"\r\n", b"web:" + secret + b"\r\n"):
        assert said(PrefaceLayer(), line).asked
    endless = said(PrefaceLayer(), b"MARCHPROXY/1 " + b"x" * MAX_LINE)
    assert (endless.sent, endless.reason()) == (b"ERR MALFORMED\n", Reason.MALFORMED)


NASTY = [
    (b"MARCHPROXY/1 \n", b"ERR AUTH_INVALID\n"),
    (b"MARCHPROXY/1 a b\n", b"ERR AUTH_INVALID\n"),
    (b"MARCHPROXY/1 a\0b\n", b"ERR AUTH_INVALID\n"),
    (b"MARCHPROXY/1 a\rb\n", b"ERR AUTH_INVALID\n"),
    (b"MARCHPROXY/1 a\r\r\n", b"ERR AUTH_INVALID\n"),
    (b"MARCHPROXY/1 \xff\n", b"ERR AUTH_INVALID\n"),
    (b"MARCHPROXY/1 " + b"x" * (MAX_SECRET + 1) + b"\n", b"ERR AUTH_INVALID\n"),
    (b"MARCHPROXY/1\n", b"ERR UNSUPPORTED\n"),
    (b"MARCHPROXY/2 a\n", b"ERR UNSUPPORTED\n"),
    (b"MARCHPROXY/2:a\n", b"ERR UNSUPPORTED\n"),
    (b"\n", b"ERR AUTH_MISSING\n"),
    (b"\r\n", b"ERR AUTH_MISSING\n"),
    (b"token\n", b"ERR AUTH_MISSING\n"),
    (b"SSH-2.0-OpenSSH_9.2 a:b\r\n", b"ERR AUTH_MISSING\n"),
    (b"GET / HTTP/1.1\r\n", b"ERR AUTH_MISSING\n"),
    (b"\x16\x03\x01\x02\x00", b"ERR AUTH_MISSING\n"),
    (b"web:\n", b"AUTH_FAILED\n"),
    (b"all:token\n", b"AUTH_FAILED\n"),
    (b"a b:token\n", b"ERR AUTH_MISSING\n"),
]


@pytest.mark.parametrize(("data", "sent"), NASTY, ids=[repr(data[:30]) for data, _ in NASTY])
def test_a_line_of_neither_form_is_refused(data: bytes, sent: bytes) -> None:
    conversation = said(PrefaceLayer(), data)
    assert (conversation.sent, conversation.asked) == (sent, [])
    check_pieces(PrefaceLayer, single(data))


def test_who_leaves_without_a_word_is_no_error() -> None:
    conversation = Conversation(PrefaceLayer())
    conversation.wait()
    assert conversation.hear(Ended()) == [Close(Reason.CLOSED)]


SEEDS = [b"MARCHPROXY/1 t0ken\nahead", b"MARCHPROXY/1 t0ken\r\n", b"web:t0ken\n", b"eu/web:t\r\n"]


@pytest.mark.parametrize("data", SEEDS)
def test_what_is_right_may_come_byte_by_byte(data: bytes) -> None:
    check_pieces(PrefaceLayer, single(data))


@given(hostile(SEEDS))
def test_any_bytes_in_any_pieces_come_to_the_same(pieces: list[bytes]) -> None:
    check_pieces(PrefaceLayer, pieces)
