"""The explicit proxy's one port, as conversations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.proxy.protocol.admission import DEADLINE
from marchproxy.dataplane.proxy.protocol.detect import ExplicitLayer
from marchproxy.dataplane.proxy.protocol.exchange import Close, Elapsed, Ended, Speech
from marchproxy.model.reason import Reason
from tests.dataplane.proxy.protocol.conversation import (
    BEGIN,
    OPENED,
    Conversation,
    check_pieces,
    cut,
    hostile,
    said,
    single,
)

CONNECT = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"
SOCKS5 = b"\x05\x01\x00\x05\x01\x00\x03\x0bexample.com\x01\xbb"


@pytest.mark.parametrize(("data", "speech"), [(CONNECT, Speech.CONNECT), (SOCKS5, Speech.SOCKS5)])
def test_the_first_byte_decides(data: bytes, speech: Speech) -> None:
    conversation = Conversation(ExplicitLayer())
    conversation.say(data[:1])
    conversation.say(data[1:] + b"ahead")
    assert [(asked.speech, asked.host, asked.port) for asked in conversation.asked] == [
        (speech, "example.com", 443)
    ]
    conversation.hear(OPENED)
    assert conversation.upstream == b"ahead"


def test_socks4_is_refused_in_its_own_words() -> None:
    conversation = said(ExplicitLayer(), b"\x04\x01\x00\x50\x00\x00\x00\x01u\0example.com\0")
    assert conversation.sent == b"\x00\x5b" + bytes(6)
    assert conversation.reason() is Reason.UNSUPPORTED


def test_tls_gets_an_alert() -> None:
    conversation = said(ExplicitLayer(), b"\x16\x03\x01\x02\x00\x01")
    assert conversation.sent == b"\x15\x03\x03\x00\x02\x02\x28"
    assert conversation.reason() is Reason.MALFORMED


def test_a_client_has_a_deadline_for_its_first_byte_and_one_for_the_rest() -> None:
    silent = Conversation(ExplicitLayer())
    assert silent.wake_at == BEGIN + DEADLINE
    silent.wait()
    assert (silent.sent, silent.reason()) == (b"", Reason.TOO_SLOW)
    late = Conversation(ExplicitLayer())
    late.now += DEADLINE - 1
    late.say(b"C")
    assert late.wake_at == BEGIN + 2 * DEADLINE - 1
    late.wait()
    assert late.sent.startswith(b"HTTP/1.1 408 ")


def test_who_leaves_without_a_word_is_no_error() -> None:
    assert Conversation(ExplicitLayer()).hear(Ended()) == [Close(Reason.CLOSED)]


def test_an_answer_without_a_question_is_ignored() -> None:
    assert Conversation(ExplicitLayer()).hear(OPENED) == []


def test_time_counts_for_what_it_has_become() -> None:
    conversation = said(ExplicitLayer(), SOCKS5)
    assert conversation.wake_at is None
    assert conversation.hear(Elapsed()) == []


FIRST = st.builds(lambda first, rest: bytes((first,)) + rest, st.integers(0, 32), st.binary(max_size=60))


SEEDS = [CONNECT, SOCKS5]


@pytest.mark.parametrize("data", SEEDS)
def test_what_is_right_may_come_byte_by_byte(data: bytes) -> None:
    check_pieces(ExplicitLayer, single(data))


@given(hostile(SEEDS) | cut(FIRST))
def test_any_bytes_in_any_pieces_come_to_the_same(pieces: list[bytes]) -> None:
    check_pieces(ExplicitLayer, pieces)
