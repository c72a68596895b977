"""One question to one server: what is taken for its answer, and what is not."""

import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from marchproxy.dataplane.names.exchange import ExchangeFailed, Question, exchange
from marchproxy.dataplane.names.found import Failure
from tests.dataplane.loops import looped
from tests.dataplane.names.dns_server import DnsServer, dns_server

WWW = Question(dns.name.from_text("www.example.com"), dns.rdatatype.A)


async def ask(server: DnsServer, question: Question = WWW, seconds: float = 5) -> list[str]:
    """The addresses in the answer."""
    reply = await exchange(server.endpoint, question, seconds)
    return [record.to_text() for rrset in reply.message.answer for record in rrset]


@looped
async def test_an_answer_comes_as_bytes_and_as_a_message() -> None:
    async with dns_server() as server:
        server.has("www.example.com", "192.0.2.7")
        reply = await exchange(server.endpoint, WWW, 5)
        assert reply.message.answer[0][0].to_text() == "192.0.2.7"
        assert reply.wire[:2] == reply.message.id.to_bytes(2)
        assert server.over_tcp == []


@pytest.mark.parametrize("lie", ["id", "question", "port", "garbage", "question-as-answer"])
@looped
async def test_what_somebody_else_says_is_passed_over(lie: str) -> None:
    async with dns_server() as server:
        server.has("www.example.com", "192.0.2.7")
        server.lies = [lie]
        assert await ask(server) == ["192.0.2.7"]


@looped
async def test_a_guesser_is_left_standing_and_tcp_asked() -> None:
    async with dns_server() as server:
        server.has("www.example.com", "192.0.2.7")
        server.lies = ["id"] * 50
        assert await ask(server) == ["192.0.2.7"]
        assert server.over_tcp == ["www.example.com."]


@looped
async def test_an_answer_that_is_cut_off_is_fetched_whole() -> None:
    async with dns_server() as server:
        addresses = [f"192.0.2.{n}" for n in range(1, 200)]
        server.has("www.example.com", *addresses)
        server.truncated = True
        assert sorted(await ask(server)) == sorted(addresses)
        server.truncated_always = True
        with pytest.raises(ExchangeFailed) as failed:
            await ask(server)
        assert failed.value.failure is Failure.MALFORMED


@looped
async def test_a_server_that_does_not_know_edns_is_asked_without() -> None:
    async with dns_server() as server:
        server.has("www.example.com", "192.0.2.7")
        server.knows_edns = False
        assert await ask(server) == ["192.0.2.7"]
        assert len(server.asked) == 2


@looped
async def test_silence_and_absence_are_told_apart() -> None:
    async with dns_server() as server:
        server.silent = True
        with pytest.raises(ExchangeFailed) as failed:
            await ask(server, seconds=0.05)
        assert failed.value.failure is Failure.TIMEOUT
    with pytest.raises(ExchangeFailed) as failed:
        await ask(server)
    assert failed.value.failure is Failure.UNREACHABLE


@looped
async def test_ids_and_ports_are_hard_to_guess() -> None:
    async with dns_server() as server:
        server.has("www.example.com", "192.0.2.7")
        for _ in range(40):
            await ask(server)
        assert len(set(server.ids)) > 35
        assert len(set(server.ports)) > 35
        steps = {after - before for before, after in zip(server.ports, server.ports[1:], strict=False)}
        assert len(steps) > 30


@looped
async def test_every_rcode_is_an_answer_here() -> None:
    async with dns_server() as server:
        server.rcode = dns.rcode.SERVFAIL
        assert (await exchange(server.endpoint, WWW, 5)).message.rcode() == dns.rcode.SERVFAIL


def test_what_a_resolver_says_about_a_name_is_no_failure_of_its_own() -> None:
    said = {failure for failure in Failure if failure.is_answer}
    assert said == {Failure.NXDOMAIN, Failure.NODATA, Failure.REBINDING}
