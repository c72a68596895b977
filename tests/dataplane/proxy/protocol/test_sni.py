"""TLS that passes through, as conversations."""

import pytest
from hypothesis import given

from marchproxy.dataplane.proxy.protocol.admission import DEADLINE
from marchproxy.dataplane.proxy.protocol.exchange import MAX_AHEAD, Ask, Relay, Request, Speech, WakeAt
from marchproxy.dataplane.proxy.protocol.sni import SniLayer
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
from tests.dataplane.proxy.protocol.hellos import extension, hello, message, names, real_hello, records

HELLO = hello(names(b"Example.com."), extension(0xFE0D, b"x"))


def alert(description: int) -> bytes:
    return bytes((21, 3, 3, 0, 2, 2, description))


def test_a_hello_is_asked_about_and_passed_on_unchanged() -> None:
    conversation = Conversation(SniLayer())
    assert conversation.wake_at == BEGIN + DEADLINE
    assert conversation.say(HELLO[:9]) == []
    asked = Ask(Request(Speech.TLS, "example.com", None, secure=True, ech=True))
    assert conversation.say(HELLO[9:]) == [WakeAt(None), asked]
    conversation.say(b"\x17\x03\x03")
    assert conversation.hear(OPENED) == [Relay(HELLO + b"\x17\x03\x03")]
    assert conversation.sent == b""


def test_what_it_said_can_be_looked_at() -> None:
    layer = SniLayer()
    said(layer, real_hello("www.example.com", ["h2"]))
    assert layer.hello is not None
    assert layer.hello.alpn == ("h2",)


def test_a_client_without_a_name_and_one_without_tls_are_the_policy_s_to_judge() -> None:
    assert said(SniLayer(), hello()).asked == [Request(Speech.TLS, None, None, secure=True)]
    plain = said(SniLayer(), b"SSH-2.0-x\r\n")
    assert plain.asked == [Request(Speech.TLS, None, None)]
    assert plain.refuse(Reason.SNI_MISSING) == b""
    passed = said(SniLayer(), b"SSH-2.0-x\r\n")
    passed.hear(OPENED)
    assert passed.upstream == b"SSH-2.0-x\r\n"


@pytest.mark.parametrize(
    ("reason", "description"),
    [
        (Reason.NO_MAPPING, 49),
        (Reason.AUTH_MISSING, 49),
        (Reason.SNI_MISMATCH, 112),
        (Reason.SNI_MISSING, 112),
        (Reason.NAME_UNKNOWN, 112),
        (Reason.UPSTREAM_TIMEOUT, 40),
    ],
)
def test_a_refusal_is_an_alert(reason: Reason, description: int) -> None:
    assert said(SniLayer(), HELLO).refuse(reason) == alert(description)


def test_a_broken_hello_and_one_that_never_ends_are_refused() -> None:
    broken = said(SniLayer(), hello(names(b"a", b"b")))
    assert (broken.sent, broken.reason()) == (alert(50), Reason.MALFORMED)
    crumbs = records(message(names(b"a"), extension(21, bytes(50_000))), 1)
    endless = said(SniLayer(), crumbs[: MAX_AHEAD + 1])
    assert (endless.sent, endless.reason()) == (alert(50), Reason.MALFORMED)


def test_a_hello_of_almost_all_that_may_be_held_is_read() -> None:
    assert said(SniLayer(), records(message(names(b"a"), extension(21, bytes(64_000))))).asked


def test_who_is_slow_is_refused() -> None:
    slow = said(SniLayer(), HELLO[:-1])
    slow.wait()
    assert (slow.sent, slow.reason()) == (alert(40), Reason.TOO_SLOW)
    silent = Conversation(SniLayer())
    silent.wait()
    assert (silent.sent, silent.reason()) == (b"", Reason.TOO_SLOW)


SEEDS = [HELLO, records(message(names(b"example.com")), 5), hello(), b"GET / HTTP/1.1\r\n"]


@pytest.mark.parametrize("data", SEEDS)
def test_what_is_right_may_come_byte_by_byte(data: bytes) -> None:
    check_pieces(SniLayer, single(data))


@given(hostile(SEEDS))
def test_any_bytes_in_any_pieces_come_to_the_same(pieces: list[bytes]) -> None:
    check_pieces(SniLayer, pieces)
