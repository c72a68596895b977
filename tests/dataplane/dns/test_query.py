"""What clients send: fit questions, unfit ones, and noise."""

import random

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.dns.query import Query, Unanswered, read_query


def refusal(wire: bytes) -> dns.message.Message | None:
    with pytest.raises(Unanswered) as unanswered:
        read_query(wire)
    found = unanswered.value.wire
    return None if found is None else dns.message.from_wire(found)


def test_a_question_is_read_with_what_its_client_can_take() -> None:
    message = dns.message.make_query("WwW.Example.com", "AAAA", use_edns=True, payload=4096, want_dnssec=True)
    message.flags |= dns.flags.CD
    query = read_query(message.to_wire())
    assert (query.name, query.payload) == ("www.example.com", 1232)
    assert (query.question.dnssec, query.question.unchecked) == (True, True)
    plain = read_query(dns.message.make_query(".", "NS").to_wire())
    assert (plain.name, plain.payload, plain.question.dnssec) == (".", 512, False)
    small = dns.message.make_query("a", "A", use_edns=True, payload=100)
    assert read_query(small.to_wire()).payload == 512


@pytest.mark.parametrize("wire", [b"", b"\0" * 11, b"\0\x07\x81\x80" + bytes(8)])
def test_noise_and_answers_get_silence(wire: bytes) -> None:
    assert refusal(wire) is None


@pytest.mark.parametrize("opcode", [1, 2, 3, 4, 5, 6, 15])
def test_only_questions_are_taken(opcode: int) -> None:
    answer = refusal(b"\x12\x34" + bytes([opcode << 3 | 1, 0]) + bytes(8))
    assert answer is not None
    assert (answer.id, answer.rcode()) == (0x1234, dns.rcode.NOTIMP)


QUESTION = dns.message.make_query("www.example.com", "A", id=0x1234).to_wire()
NO_QUESTION = QUESTION[:4] + bytes(8)
TWO_QUESTIONS = QUESTION[:5] + b"\2" + QUESTION[6:] + QUESTION[12:]
CUT_OFF = QUESTION[:-3]
LOOP = QUESTION[:12] + b"\xc0\x0c\0\1\0\1"
LONG_LABEL = QUESTION[:12] + b"\x7f" + bytes(20)
TRAILING = QUESTION + b"x"


@pytest.mark.parametrize("wire", [NO_QUESTION, TWO_QUESTIONS, CUT_OFF, LOOP, LONG_LABEL, TRAILING])
def test_malformed_questions_are_told_so(wire: bytes) -> None:
    answer = refusal(wire)
    assert answer is not None
    assert (answer.id, answer.rcode(), answer.flags & dns.flags.RD) == (
        0x1234,
        dns.rcode.FORMERR,
        dns.flags.RD,
    )


@pytest.mark.parametrize("kind", ["ANY", "AXFR", "IXFR", "MAILA", "MAILB", "TKEY"])
def test_any_and_transfers_are_refused(kind: str) -> None:
    answer = refusal(dns.message.make_query("example.com", kind).to_wire())
    assert answer is not None
    assert answer.rcode() == dns.rcode.REFUSED
    assert answer.question[0].name.to_text() == "example.com."


def test_other_classes_and_looks_into_our_cache_are_refused() -> None:
    chaos = refusal(dns.message.make_query("version.bind", "TXT", "CH").to_wire())
    snooping = dns.message.make_query("www.example.com", "A", flags=0)
    for answer in (chaos, refusal(snooping.to_wire())):
        assert answer is not None
        assert answer.rcode() == dns.rcode.REFUSED


def test_another_version_of_edns_is_told_so() -> None:
    message = dns.message.make_query("www.example.com", "A", use_edns=1)
    answer = refusal(message.to_wire())
    assert answer is not None
    assert answer.rcode() == dns.rcode.BADVERS


def outcome(wire: bytes) -> Query | bytes | None:
    try:
        return read_query(wire)
    except Unanswered as error:
        return error.wire


@given(st.binary(max_size=600))
def test_nothing_that_can_be_sent_breaks_it(wire: bytes) -> None:
    found = outcome(wire)
    assert not isinstance(found, bytes) or (found[:2] == wire[:2] and found[2] & 0x80)


def test_damaged_questions_break_nothing_either() -> None:
    chance = random.Random(7)
    options = dns.message.make_query("www.example.com", "A", use_edns=True, want_dnssec=True).to_wire()
    for _ in range(3000):
        wire = bytearray(chance.choice((QUESTION, options)))
        for _ in range(chance.randint(1, 4)):
            wire[chance.randrange(len(wire))] = chance.randrange(256)
        found = outcome(bytes(wire))
        assert not isinstance(found, bytes) or found[2] & 0x80
