"""Answers fetched once for many, remembered, and standing in when nobody answers."""

import asyncio

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from marchproxy.dataplane.dns import forwarder as module
from marchproxy.dataplane.dns.forwarder import Forwarder, holds
from marchproxy.dataplane.names.exchange import ExchangeFailed, Question, Reply
from marchproxy.dataplane.names.found import Failure
from marchproxy.model.endpoint import Endpoint, parse_endpoint
from tests.dataplane.loops import looped, until

WWW = Question(dns.name.from_text("www.example.com"), dns.rdatatype.A)


def reply(ttl: int = 60, address: str = "192.0.2.1") -> Reply:
    message = dns.message.make_response(dns.message.make_query("www.example.com", "A"))
    message.answer = [dns.rrset.from_text("www.example.com.", ttl, "IN", "A", address)]
    return Reply(message.to_wire(), message)


class Resolver:
    """Answers with `reply`, once `speaks` is set; or fails."""

    def __init__(self) -> None:
        self.servers: tuple[Endpoint, ...] = (parse_endpoint("192.0.2.53:53"),)
        self.speaks = asyncio.Event()
        self.speaks.set()
        self.reply: Reply | Failure = reply()
        self.asked = 0
        self.now = 1000.0

    async def ask(self, question: Question) -> Reply:
        self.asked += 1
        await self.speaks.wait()
        if isinstance(self.reply, Failure):
            raise ExchangeFailed(self.reply)
        return self.reply

    def clock(self) -> float:
        return self.now


@looped
async def test_many_who_ask_the_same_are_one_question() -> None:
    resolver = Resolver()
    resolver.speaks.clear()
    forwarder = Forwarder(resolver, resolver.clock)
    asking = [asyncio.create_task(forwarder.fetch(WWW)) for _ in range(50)]
    await until(lambda: resolver.asked > 0)
    # One who gives up takes the question from nobody.
    asking.pop().cancel()
    resolver.speaks.set()
    assert {fetched.wire for fetched in await asyncio.gather(*asking)} == {reply_wire(resolver)}
    assert resolver.asked == 1
    await forwarder.close()


def reply_wire(resolver: Resolver) -> bytes:
    assert isinstance(resolver.reply, Reply)
    return resolver.reply.wire


@looped
async def test_an_answer_is_given_again_with_its_age_until_its_ttl_ends() -> None:
    resolver = Resolver()
    forwarder = Forwarder(resolver, resolver.clock)
    await forwarder.fetch(WWW)
    resolver.now += 59
    fetched = await forwarder.fetch(WWW)
    assert (fetched.age, fetched.ttl, resolver.asked) == (59, None, 1)
    resolver.now += 1
    assert (await forwarder.fetch(WWW)).age == 0
    assert resolver.asked == 2
    await forwarder.close()


@pytest.mark.parametrize("failure", [Failure.TIMEOUT, Failure.SERVFAIL, Failure.UNREACHABLE])
@looped
async def test_an_old_answer_stands_in_for_none(failure: Failure) -> None:
    resolver = Resolver()
    forwarder = Forwarder(resolver, resolver.clock)
    await forwarder.fetch(WWW)
    resolver.now += 3600
    resolver.reply = failure
    fetched = await forwarder.fetch(WWW)
    assert (fetched.ttl, fetched.age) == (module.STALE_TTL, 0)
    resolver.now += 86400
    with pytest.raises(ExchangeFailed) as failed:
        await forwarder.fetch(WWW)
    assert failed.value.failure is failure
    await forwarder.close()


@looped
async def test_an_old_answer_does_not_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALE_AFTER", 0.01)
    resolver = Resolver()
    forwarder = Forwarder(resolver, resolver.clock)
    await forwarder.fetch(WWW)
    resolver.now += 3600
    resolver.speaks.clear()
    resolver.reply = reply(address="192.0.2.9")
    assert (await forwarder.fetch(WWW)).ttl == module.STALE_TTL
    resolver.speaks.set()
    # The question that was late still brings the new answer in.
    new = resolver.reply.wire
    while (await forwarder.fetch(WWW)).wire != new:
        await asyncio.sleep(0)
    assert resolver.asked == 2
    await forwarder.close()


@looped
async def test_a_client_waits_no_longer_than_it_has_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    resolver = Resolver()
    resolver.speaks.clear()
    forwarder = Forwarder(resolver, resolver.clock)
    with pytest.raises(ExchangeFailed) as failed:
        await forwarder.fetch(WWW)
    assert failed.value.failure is Failure.TIMEOUT
    await forwarder.close()


@looped
async def test_questions_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 3)
    resolver = Resolver()
    resolver.speaks.clear()
    forwarder = Forwarder(resolver, resolver.clock)
    names = [Question(dns.name.from_text(f"h{number}.example.com"), dns.rdatatype.A) for number in range(5)]
    asking = [asyncio.create_task(forwarder.fetch(name)) for name in names]
    await until(lambda: sum(task.done() for task in asking) == 2)
    assert resolver.asked == 3
    resolver.speaks.set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(isinstance(outcome, ExchangeFailed) for outcome in outcomes) == 2
    await forwarder.close()


@looped
async def test_other_resolvers_may_say_other_things() -> None:
    resolver = Resolver()
    forwarder = Forwarder(resolver, resolver.clock)
    await forwarder.fetch(WWW)
    resolver.servers = (parse_endpoint("192.0.2.54:53"),)
    await forwarder.fetch(WWW)
    assert resolver.asked == 2
    await forwarder.close()


@looped
async def test_what_does_not_hold_is_not_remembered() -> None:
    resolver = Resolver()
    resolver.reply = reply(ttl=0)
    forwarder = Forwarder(resolver, resolver.clock)
    await forwarder.fetch(WWW)
    await forwarder.fetch(WWW)
    assert resolver.asked == 2
    await forwarder.close()


def test_how_long_an_answer_holds() -> None:
    message = dns.message.make_response(dns.message.make_query("www.example.com", "A"))
    assert holds(message) == 0
    soa = "ns.example.com. admin.example.com. 1 2 3 4 {minimum}"
    for ttl, minimum, expected in ((60, 30, 30), (20, 30, 20), (9000, 9000, 300)):
        message.authority = [
            dns.rrset.from_text("example.com.", ttl, "IN", "SOA", soa.format(minimum=minimum))
        ]
        assert holds(message) == expected
    message.answer = [
        dns.rrset.from_text("www.example.com.", 50, "IN", "CNAME", "a.example.com."),
        dns.rrset.from_text("a.example.com.", 7, "IN", "A", "192.0.2.1"),
    ]
    assert holds(message) == 7
    message.set_rcode(dns.rcode.NXDOMAIN)
    assert holds(message) == 300
