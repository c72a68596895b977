"""SOCKS5, as conversations."""

from ipaddress import ip_address

import pytest
from hypothesis import given

from marchproxy.dataplane.proxy.protocol.admission import DEADLINE
from marchproxy.dataplane.proxy.protocol.exchange import Ask, Opened, Relay, Request, Send, Speech, WakeAt
from marchproxy.dataplane.proxy.protocol.socks5 import Socks5Layer
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

NO_AUTH = b"\x05\x01\x00"
BOTH = b"\x05\x03\x00\x01\x02"
WEB = b"\x01\x03web\x05token"
TO_NAME = b"\x05\x01\x00\x03\x0bExample.com\x01\xbb"
TO_V4 = b"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x16"
TO_V6 = b"\x05\x01\x00\x04" + ip_address("2001:db8::7").packed + b"\x00\x16"
ASSOCIATE = b"\x05\x03\x00\x01" + bytes(6)


def reply(code: int) -> bytes:
    return bytes((5, code, 0, 1)) + bytes(6)


def test_a_client_without_a_credential_connects_to_a_name() -> None:
    conversation = Conversation(Socks5Layer())
    assert conversation.wake_at == BEGIN + DEADLINE
    assert conversation.say(NO_AUTH) == [Send(b"\x05\x00")]
    asked = Ask(Request(Speech.SOCKS5, "example.com", 443))
    assert conversation.say(TO_NAME) == [WakeAt(None), asked]
    opened = conversation.hear(OPENED)
    assert opened == [Send(b"\x05\x00\x00\x01\xc0\x00\x02\x01\x12\x67"), Relay()]


def test_who_can_say_who_it_is_is_asked_to() -> None:
    conversation = Conversation(Socks5Layer())
    assert conversation.say(BOTH) == [Send(b"\x05\x02")]
    assert conversation.say(WEB) == [Send(b"\x01\x00")]
    conversation.say(TO_V4)
    web = Presented("token", "web")
    assert conversation.asked == [Request(Speech.SOCKS5, ip_address("192.0.2.7"), 22, web)]


def test_what_comes_all_at_once_is_taken_as_if_it_had_waited() -> None:
    conversation = said(Socks5Layer(), BOTH + WEB + TO_V6 + b"SSH-2.0")
    assert conversation.sent == b"\x05\x02\x01\x00"
    conversation.say(b"-x")
    conversation.hear(Opened(ip_address("2001:db8::1"), 1))
    assert conversation.upstream == b"SSH-2.0-x"
    assert conversation.sent[4:] == b"\x05\x00\x00\x04" + ip_address("2001:db8::1").packed + b"\x00\x01"


def test_an_association_learns_where_its_datagrams_go() -> None:
    conversation = said(Socks5Layer(), NO_AUTH + ASSOCIATE + b"noise")
    assert conversation.asked == [Request(Speech.ASSOCIATE, ip_address("0.0.0.0"), 0)]
    assert conversation.hear(OPENED)[-1] == Relay(b"")
    assert conversation.sent.endswith(b"\xc0\x00\x02\x01\x12\x67")


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.NO_MAPPING, 2),
        (Reason.DENY_MAPPING, 2),
        (Reason.PRIVATE_ADDRESS, 2),
        (Reason.AUTH_MISSING, 2),
        (Reason.AUTH_INVALID, 2),
        (Reason.AUTH_EXPIRED, 2),
        (Reason.NAME_UNKNOWN, 4),
        (Reason.NO_ROUTE, 3),
        (Reason.UPSTREAM_REFUSED, 5),
        (Reason.UPSTREAM_TIMEOUT, 4),
        (Reason.NO_BACKEND, 1),
        (Reason.FLOW_TABLE_FULL, 1),
    ],
)
def test_a_refusal_has_the_code_that_is_nearest(reason: Reason, code: int) -> None:
    assert said(Socks5Layer(), NO_AUTH + TO_NAME).refuse(reason) == reply(code)


NASTY = [
    (b"\x04\x01", b"\x05\xff", Reason.MALFORMED),
    (b"\x05\x00", b"\x05\xff", Reason.UNSUPPORTED),
    (b"\x05\x02\x01\x80", b"\x05\xff", Reason.UNSUPPORTED),
    (BOTH + b"\x05\x01", b"\x05\x02\x01\x01", Reason.MALFORMED),
    (BOTH + b"\x01\x03web\x00", b"\x05\x02\x01\x01", Reason.AUTH_INVALID),
    (BOTH + b"\x01\x03web\x03a\0b", b"\x05\x02\x01\x01", Reason.AUTH_INVALID),
    (BOTH + b"\x01\x03web\x03a\nb", b"\x05\x02\x01\x01", Reason.AUTH_INVALID),
    (BOTH + b"\x01\x03w\nb\x03abc", b"\x05\x02\x01\x01", Reason.AUTH_INVALID),
    (NO_AUTH + b"\x04\x01", b"\x05\x00" + reply(1), Reason.MALFORMED),
    (NO_AUTH + b"\x05\x02" + TO_V4[2:], b"\x05\x00" + reply(7), Reason.UNSUPPORTED),
    (NO_AUTH + b"\x05\xf0" + TO_V4[2:], b"\x05\x00" + reply(7), Reason.UNSUPPORTED),
    (NO_AUTH + b"\x05\x01\x00\x02", b"\x05\x00" + reply(8), Reason.MALFORMED),
    (NO_AUTH + b"\x05\x01\x00\x03\x00\x00\x50", b"\x05\x00" + reply(1), Reason.MALFORMED),
    (NO_AUTH + b"\x05\x01\x00\x03\x03a\0b\x00\x50", b"\x05\x00" + reply(1), Reason.MALFORMED),
    (NO_AUTH + TO_V4[:-2] + b"\0\0", b"\x05\x00" + reply(1), Reason.MALFORMED),
]


@pytest.mark.parametrize(("data", "sent", "reason"), NASTY, ids=[data.hex() for data, _, _ in NASTY])
def test_what_is_malformed_is_refused_in_its_step(data: bytes, sent: bytes, reason: Reason) -> None:
    conversation = said(Socks5Layer(), data)
    assert (conversation.sent, conversation.reason(), conversation.asked) == (sent, reason, [])
    check_pieces(Socks5Layer, single(data))


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        (b"\x05", b"\x05\xff"),
        (BOTH + WEB[:-1], b"\x05\x02\x01\x01"),
        (NO_AUTH + TO_NAME[:-1], b"\x05\x00" + reply(1)),
    ],
)
def test_each_step_is_over_by_the_deadline(data: bytes, sent: bytes) -> None:
    conversation = said(Socks5Layer(), data)
    conversation.wait()
    assert (conversation.now, conversation.reason()) == (BEGIN + DEADLINE, Reason.TOO_SLOW)
    assert conversation.sent == sent


SEEDS = [NO_AUTH + TO_NAME + b"x", BOTH + WEB + TO_V4, NO_AUTH + TO_V6, NO_AUTH + ASSOCIATE]


@pytest.mark.parametrize("data", SEEDS)
def test_what_is_right_may_come_byte_by_byte(data: bytes) -> None:
    check_pieces(Socks5Layer, single(data))


@given(hostile(SEEDS))
def test_any_bytes_in_any_pieces_come_to_the_same(pieces: list[bytes]) -> None:
    check_pieces(Socks5Layer, pieces)
