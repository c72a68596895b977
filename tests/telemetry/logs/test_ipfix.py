"""IPFIX messages, read back by RFC 7011 alone."""

from ipaddress import ip_address

import pytest

from marchproxy.model.reason import Reason
from marchproxy.telemetry.logs import ipfix
from marchproxy.telemetry.logs.ipfix import LARGEST, RESEND_MESSAGES, IpfixEncoder
from marchproxy.telemetry.logs.records import Record
from tests.telemetry.logs.collecting import Reader
from tests.telemetry.logs.made import NOON, denied, ended, ended6, message


def encoder(*, datagrams: bool = True) -> IpfixEncoder:
    return IpfixEncoder(7, 32473, datagrams=datagrams)


def read(records: list[Record]) -> Reader:
    reader = Reader()
    for raw, _ in encoder().encode(records):
        reader.message(raw)
    return reader


def number(raw: bytes) -> int:
    return int.from_bytes(raw)


def test_a_flow_is_two_records_that_share_an_id() -> None:
    (_, sent), (_, received) = read([ended(name="db.example")]).records
    assert [number(each[148]) for each in (sent, received)] == [4711, 4711]
    assert [number(each[61]) for each in (sent, received)] == [0, 1]
    assert (sent[8], sent[12]) == (ip_address("10.1.0.2").packed, ip_address("10.1.0.1").packed)
    assert (received[8], received[12]) == (sent[12], sent[8])
    assert (number(sent[7]), number(sent[11]), number(sent[4])) == (40001, 80, 6)
    assert (number(received[7]), number(received[11])) == (80, 40001)
    assert (number(sent[1]), number(sent[2])) == (1000, 10)
    assert (number(received[1]), number(received[2])) == (30000, 20)
    assert (number(sent[152]), number(sent[153])) == (int((NOON - 2.5) * 1000), int(NOON * 1000))
    assert (number(sent[136]), number(sent[89])) == (3, 0x40)
    assert (sent[226], number(sent[228])) == (ip_address("10.2.0.3").packed, 8080)
    assert 226 not in received
    assert number(sent["own", 1]) == Reason.CLOSED
    texts = [sent["own", element] for element in range(2, 6)]
    assert texts == [b"default/web", b"default/clients", b"default/web", b"db.example"]


def test_ipv6_has_templates_of_its_own() -> None:
    (_, sent), (_, received) = read([ended6()]).records
    assert (sent[27], sent[28]) == (ip_address("fd01::2").packed, ip_address("fd01::1").packed)
    assert sent[282] == ip_address("fd02::3").packed
    assert received[27] == sent[28]


def test_a_refusal_has_packets_and_no_octets() -> None:
    for record in (denied(), denied(source=ip_address("fd01::2"), destination=ip_address("fd01::1"))):
        [(_, found)] = read([record]).records
        assert (number(found[2]), number(found[233]), number(found[89])) == (3, 3, 0x81)
        assert 1 not in found
        assert number(found["own", 1]) == Reason.NO_MAPPING


@pytest.mark.parametrize(
    ("reason", "why"), [(Reason.IDLE, 1), (Reason.RESET, 3), (Reason.CUT, 4), (Reason.POLICY_CHANGED, 4)]
)
def test_why_a_flow_ended(reason: Reason, why: int) -> None:
    assert number(read([ended(reason=reason)]).records[0][1][136]) == why


def test_messages_fit_into_a_datagram_and_their_numbers_count_data_records() -> None:
    records: list[Record] = [(ended, ended6, denied)[at % 3](name=f"host{at}.example") for at in range(300)]
    own, reader, told = encoder(), Reader(), 0
    for raw, count in own.encode(records):
        assert len(raw) <= LARGEST
        reader.message(raw)
        told += count
    assert told == 300
    assert len(reader.records) == 500
    assert reader.sequence == 500


def test_messages_of_class_debug_are_no_flows() -> None:
    reader = read([message(), ended()])
    assert len(reader.records) == 2
    assert list(encoder().encode([message()])) == []


def test_templates_come_again_for_a_collector_that_was_late(monkeypatch: pytest.MonkeyPatch) -> None:
    own = encoder()
    sizes = [len(list(own.encode([ended()]))) for _ in range(2 * RESEND_MESSAGES)]
    assert sum(sizes) == 2 * RESEND_MESSAGES + 2
    monkeypatch.setattr(ipfix, "RESEND", 0.0)
    assert len(list(own.encode([ended()]))) == 2


def test_a_stream_has_them_once_and_begins_anew_with_a_connection() -> None:
    own = encoder(datagrams=False)
    for _ in range(2):
        own.begin()
        reader = Reader()
        for _ in range(RESEND_MESSAGES + 2):
            reader.stream(b"".join(raw for raw, _ in own.encode([ended()])))
        assert reader.messages == RESEND_MESSAGES + 3
        assert reader.sequence == 2 * (RESEND_MESSAGES + 2)


def test_with_datagrams_numbers_go_on_over_a_new_socket() -> None:
    own, reader = encoder(), Reader()
    for _ in range(3):
        own.begin()
        for raw, _ in own.encode([ended()]):
            reader.message(raw)
    assert len(reader.records) == 6


def test_names_of_any_length_and_letters_are_texts() -> None:
    reader = read([denied(name="ü" * 200), denied(name="\ud800")])
    assert [len(found["own", 5]) for _, found in reader.records] == [254, 1]


def test_a_backend_of_the_other_family_has_no_place_in_the_record() -> None:
    [(_, sent), _] = read([ended(carried=ended6().carried)]).records
    assert sent[226] == bytes(4)
