"""What of a resolver's answer reaches a client."""

import random
from ipaddress import ip_address
from typing import Any

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from marchproxy.dataplane.dns.answer import LONGEST_TTL, addresses, read_answer, render, without
from marchproxy.dataplane.dns.query import Query, read_query


def query(name: str = "www.example.com", kind: str = "A", **options: Any) -> Query:
    return read_query(dns.message.make_query(name, kind, **options).to_wire())


def answered(
    asked: Query, *records: str, authority: tuple[str, ...] = (), additional: tuple[str, ...] = ()
) -> bytes:
    """A resolver's answer; each record is `name TTL type data`."""
    response = dns.message.make_response(asked.message, recursion_available=True)
    for section, texts in (
        (response.answer, records),
        (response.authority, authority),
        (response.additional, additional),
    ):
        for text in texts:
            name, ttl, kind, data = text.split(" ", 3)
            section.append(dns.rrset.from_text(name, int(ttl), "IN", kind, *data.split("|")))
    return response.to_wire()


def shown(records: list[dns.rrset.RRset]) -> list[str]:
    return sorted(line for rrset in records for line in rrset.to_text().split("\n"))


def test_the_records_on_the_way_are_kept_and_others_are_not() -> None:
    asked = query()
    wire = answered(
        asked,
        "www.example.com. 60 CNAME cdn.example.net.",
        "cdn.example.net. 30 A 192.0.2.1|192.0.2.2",
        "evil.example.org. 60 A 203.0.113.66",
        "www.example.com. 60 TXT hello",
        authority=("example.net. 60 NS ns.example.net.",),
        additional=("ns.example.net. 60 A 10.0.0.1",),
    )
    answer = read_answer(wire, asked, age=0)
    assert shown(answer.records) == [
        "cdn.example.net. 30 IN A 192.0.2.1",
        "cdn.example.net. 30 IN A 192.0.2.2",
        "www.example.com. 60 IN CNAME cdn.example.net.",
    ]
    assert answer.aliases == ("cdn.example.net",)
    assert answer.authority == []
    assert dns.message.from_wire(render(asked, answer, 512)).additional == []


def test_ttls_count_down_and_have_an_end() -> None:
    asked = query()
    wire = answered(asked, "www.example.com. 86400 A 192.0.2.1")
    assert read_answer(wire, asked, age=5).records[0].ttl == LONGEST_TTL
    assert read_answer(wire, asked, age=86390).records[0].ttl == 10
    assert read_answer(wire, asked, age=90000).records[0].ttl == 0
    assert read_answer(wire, asked, age=90000, ttl=30).records[0].ttl == 30


def test_why_there_is_nothing_comes_along() -> None:
    asked = query()
    soa = "example.com. 60 SOA ns.example.com. admin.example.com. 1 2 3 4 5"
    answer = read_answer(answered(asked, authority=(soa,)), asked, age=0)
    assert [rrset.rdtype.name for rrset in answer.authority] == ["SOA"]


def test_aliases_in_a_circle_end() -> None:
    asked = query()
    wire = answered(
        asked, "www.example.com. 60 CNAME a.example.com.", "a.example.com. 60 CNAME www.example.com."
    )
    assert len(read_answer(wire, asked, age=0).aliases) <= 2


def test_addresses_are_found_in_hints_too() -> None:
    asked = query(kind="HTTPS")
    hints = "ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1"
    answer = read_answer(answered(asked, f"www.example.com. 60 HTTPS 1 . {hints}"), asked, age=0)
    assert sorted(str(address) for address, _ in addresses(answer.records)) == [
        "192.0.2.1",
        "192.0.2.2",
        "2001:db8::1",
    ]
    assert without(answer.records, [ip_address("192.0.2.2")]) == []


def test_refused_addresses_are_cut_out_with_their_signatures() -> None:
    asked = query(want_dnssec=True)
    signature = "A 8 3 60 20300101000000 20200101000000 1 example.com. AAAA"
    wire = answered(
        asked, "www.example.com. 60 A 192.0.2.1|10.0.0.1", f"www.example.com. 60 RRSIG {signature}"
    )
    answer = read_answer(wire, asked, age=0)
    assert len(answer.records) == 2
    assert shown(without(answer.records, [])) == shown(answer.records)
    assert shown(without(answer.records, [ip_address("10.0.0.1")])) == ["www.example.com. 60 IN A 192.0.2.1"]


def test_signatures_are_for_those_who_ask_for_them() -> None:
    signature = "A 8 3 60 20300101000000 20200101000000 1 example.com. AAAA"
    records = ("www.example.com. 60 A 192.0.2.1", f"www.example.com. 60 RRSIG {signature}")
    plain = query()
    assert len(read_answer(answered(plain, *records), plain, age=0).records) == 1


def test_an_answer_that_does_not_fit_is_cut_off_and_says_so() -> None:
    asked = query()
    many = "|".join(f"192.0.2.{number}" for number in range(1, 200))
    answer = read_answer(answered(asked, f"www.example.com. 60 A {many}"), asked, age=0)
    wire = render(asked, answer, asked.payload)
    assert len(wire) <= 512
    assert dns.message.from_wire(wire).flags & dns.flags.TC
    whole = dns.message.from_wire(render(asked, answer, 65535))
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == 199


def test_the_answer_is_to_the_question_as_it_was_asked() -> None:
    asked = query("wWw.eXample.com")
    message = dns.message.from_wire(render(asked, read_answer(answered(asked), asked, age=0), 512))
    assert message.id == asked.message.id
    assert message.question[0].name.to_text() == "wWw.eXample.com."
    assert message.flags & dns.flags.RA
    assert message.edns < 0


def test_a_note_is_for_those_who_can_read_it() -> None:
    for edns in (False, True):
        asked = query(use_edns=edns)
        answer = read_answer(answered(asked), asked, age=0)
        answer.note = dns.edns.EDECode.BLOCKED
        found = dns.message.from_wire(render(asked, answer, 512)).extended_errors()
        assert [error.code for error in found] == ([dns.edns.EDECode.BLOCKED] if edns else [])


def test_validated_is_said_to_those_who_asked() -> None:
    for flags, said in ((dns.flags.RD, False), (dns.flags.RD | dns.flags.AD, True)):
        asked = query(flags=flags)
        answer = read_answer(answered(asked), asked, age=0)
        answer.authentic = True
        assert bool(dns.message.from_wire(render(asked, answer, 512)).flags & dns.flags.AD) is said
    assert answer.rcode == dns.rcode.NOERROR


def test_records_of_another_class_are_none_of_ours() -> None:
    asked = query()
    wire = bytearray(answered(asked, "www.example.com. 60 A 192.0.2.1"))
    record = wire.rindex(b"\x00\x01\x00\x01\x00\x00\x00\x3c")
    wire[record + 2 : record + 4] = b"\x01\x2c"
    assert read_answer(bytes(wire), asked, age=0).records == []


def test_damaged_answers_break_nothing() -> None:
    chance = random.Random(7)
    asked = query(want_dnssec=True)
    signature = "A 8 3 60 20300101000000 20200101000000 1 example.com. AAAA"
    wire = answered(
        asked,
        "www.example.com. 60 CNAME cdn.example.net.",
        "cdn.example.net. 60 A 192.0.2.1|10.0.0.1",
        "cdn.example.net. 60 HTTPS 1 . ipv4hint=192.0.2.1 alpn=h2",
        f"cdn.example.net. 60 RRSIG {signature}",
        authority=("example.com. 60 SOA ns.example.com. admin.example.com. 1 2 3 4 5",),
    )
    read = 0
    for _ in range(3000):
        damaged = bytearray(wire)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            dns.message.from_wire(bytes(damaged), ignore_trailing=True)
        except (dns.exception.DNSException, ValueError):
            # The exchange with the resolver has refused it already.
            continue
        answer = read_answer(bytes(damaged), asked, age=0)
        answer.records = without(answer.records, [ip_address("10.0.0.1")])
        assert ip_address("10.0.0.1") not in {address for address, _ in addresses(answer.records)}
        assert len(render(asked, answer, 512)) <= 512
        read += 1
    assert read > 300
