"""What becomes of a question: answered, blocked, cut, taught first, refused, limited."""

import asyncio
from collections.abc import Iterable
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import dns.edns
import dns.message
import dns.rcode
import dns.rrset
import pytest

from marchproxy.dataplane.dns import responder as module
from marchproxy.dataplane.dns.clients import BURST
from marchproxy.dataplane.dns.forwarder import Forwarder
from marchproxy.dataplane.dns.responder import Responder
from marchproxy.dataplane.names.exchange import ExchangeFailed, Question, Reply
from marchproxy.dataplane.names.found import Failure
from marchproxy.dataplane.names.rebinding import Rebinding
from marchproxy.model.address import IPAddress
from marchproxy.model.endpoint import Endpoint
from tests.dataplane.loops import looped, until

CLIENT = ip_address("10.1.0.2")


class World:
    """The resolver behind it, and the policy that is taught."""

    servers: tuple[Endpoint, ...] = ()

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {"www.example.com.": ["60 A 192.0.2.1"]}
        self.failure: Failure | None = None
        self.rebinding = Rebinding(("*.corp.example",), lambda address: address == ip_address("198.51.100.1"))
        self.learned: list[tuple[str, list[str], float]] = []
        self.waited: list[int] = []
        self.in_force = asyncio.Event()
        self.in_force.set()
        self.version = 7
        self.blocks: dict[str, str] = {}

    async def ask(self, question: Question) -> Reply:
        if self.failure:
            raise ExchangeFailed(self.failure)
        response = dns.message.make_response(dns.message.make_query(question.name, question.kind))
        for owner in (question.name.to_text().lower(), "cdn.example.net."):
            for text in self.records.get(owner, []):
                ttl, kind, data = text.split(" ", 2)
                response.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, *data.split("|")))
        wire = response.to_wire()
        return Reply(wire, dns.message.from_wire(wire))

    def refusal(self, name: str, address: IPAddress) -> str:
        return self.rebinding.refusal(name, address)

    def learn(self, name: str, addresses: Iterable[IPAddress], ttl: float) -> int:
        self.learned.append((name, sorted(map(str, addresses)), ttl))
        return self.version

    async def reach(self, version: int, seconds: float) -> bool:
        self.waited.append(version)
        try:
            async with asyncio.timeout(seconds):
                await self.in_force.wait()
        except TimeoutError:
            return False
        return True

    def responder(self) -> Responder:
        return Responder(Forwarder(self), self, self.reach, lambda name: self.blocks.get(name, ""))


async def ask(
    responder: Responder, name: str = "www.example.com", kind: str = "A", **more: Any
) -> dns.message.Message:
    wire = await responder.respond(dns.message.make_query(name, kind, **more).to_wire(), CLIENT)
    assert wire is not None
    return dns.message.from_wire(wire)


def texts(message: dns.message.Message) -> list[str]:
    return sorted(record.to_text() for rrset in message.answer for record in rrset)


@looped
async def test_policy_knows_the_addresses_before_the_client() -> None:
    world = World()
    world.in_force.clear()
    responder = world.responder()
    asking = asyncio.create_task(ask(responder))
    await until(lambda: bool(world.waited))
    assert world.learned == [("www.example.com", ["192.0.2.1"], 60)]
    assert not asking.done()
    world.in_force.set()
    assert texts(await asking) == ["192.0.2.1"]
    assert world.waited == [7]
    assert responder.counts == {"answered": 1}


@looped
async def test_each_answer_is_taught_also_one_that_is_remembered() -> None:
    world = World()
    responder = world.responder()
    await ask(responder)
    await ask(responder, "WWW.example.com")
    assert [name for name, _, _ in world.learned] == ["www.example.com"] * 2


@looped
async def test_names_that_no_policy_mentions_are_answered_at_once() -> None:
    world = World()
    world.version = 0
    assert texts(await ask(world.responder())) == ["192.0.2.1"]
    assert world.waited == []


@looped
async def test_a_policy_that_is_late_keeps_nobody_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TEACHING", 0.01)
    world = World()
    world.in_force.clear()
    responder = world.responder()
    assert texts(await ask(responder)) == ["192.0.2.1"]
    assert responder.counts["untaught"] == 1


@looped
async def test_addresses_that_point_inside_are_cut_counted_and_shown() -> None:
    world = World()
    world.records["www.example.com."] = ["60 A 192.0.2.1|10.0.0.7|198.51.100.1"]
    responder = world.responder()
    answer = await ask(responder, use_edns=True)
    assert texts(answer) == ["192.0.2.1"]
    assert [error.code for error in answer.extended_errors()] == [dns.edns.EDECode.FILTERED]
    assert world.learned == [("www.example.com", ["192.0.2.1"], 60)]
    assert "10.0.0.7 is a private address" in responder.rebinding["www.example.com"]
    assert responder.counts["rebinding"] == 1
    world.records["db.corp.example."] = ["60 A 10.0.0.7"]
    assert texts(await ask(responder, "db.corp.example")) == ["10.0.0.7"]


@looped
async def test_an_alias_does_not_hide_where_it_points() -> None:
    world = World()
    world.records |= {
        "www.example.com.": ["60 CNAME cdn.example.net."],
        "cdn.example.net.": ["60 A 169.254.169.254"],
    }
    assert texts(await ask(world.responder())) == ["cdn.example.net."]
    assert world.learned == []


@looped
async def test_what_is_refused_is_remembered_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECENT", 5)
    world = World()
    world.records |= {f"h{number}.example.com.": ["60 A 10.0.0.1"] for number in range(9)}
    responder = world.responder()
    for number in range(9):
        await ask(responder, f"h{number}.example.com")
    assert list(responder.rebinding) == [f"h{number}.example.com" for number in range(4, 9)]


@looped
async def test_blocked_names_do_not_exist_for_clients() -> None:
    world = World()
    world.blocks["www.example.com"] = "list ads"
    responder = world.responder()
    answer = await ask(responder, "www.EXAMPLE.com", use_edns=True)
    assert (answer.rcode(), texts(answer)) == (dns.rcode.NXDOMAIN, [])
    assert [error.code for error in answer.extended_errors()] == [dns.edns.EDECode.BLOCKED]
    assert (world.learned, responder.counts) == ([], {"blocked": 1})


@looped
async def test_an_alias_of_a_blocked_name_is_blocked_too() -> None:
    world = World()
    world.records |= {
        "www.example.com.": ["60 CNAME cdn.example.net."],
        "cdn.example.net.": ["60 A 192.0.2.9"],
    }
    world.blocks["cdn.example.net"] = "list ads"
    assert (await ask(world.responder())).rcode() == dns.rcode.NXDOMAIN
    assert world.learned == []


@looped
async def test_no_answer_is_said_and_a_bug_is_too(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.failure = Failure.TIMEOUT
    responder = world.responder()
    assert (await ask(responder)).rcode() == dns.rcode.SERVFAIL
    world.failure = None
    world.records["bug.example.com."] = ["60 A 192.0.2.1"]

    def broken(name: str, addresses: Iterable[IPAddress], ttl: float) -> int:
        raise ZeroDivisionError

    world.learn = broken  # type: ignore[method-assign]
    assert (await ask(responder, "bug.example.com")).rcode() == dns.rcode.SERVFAIL
    assert "ZeroDivisionError" in caplog.text
    assert responder.counts["failed"] == 2


@looped
async def test_noise_is_not_answered_and_too_many_questions_are_not_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On a busy machine answers may take so long that the limit never holds.
    monkeypatch.setattr("marchproxy.dataplane.dns.responder.time", SimpleNamespace(monotonic=lambda: 1.0))
    world = World()
    responder = world.responder()
    assert await responder.respond(b"noise", CLIENT) is None
    wire = dns.message.make_query("www.example.com", "A").to_wire()
    answered = [await responder.respond(wire, CLIENT) for _ in range(int(BURST) * 2)]
    assert answered.count(None) > 0
    assert responder.counts["limited"] == answered.count(None)
    assert await responder.respond(wire, ip_address("10.1.0.3")) is not None


@looped
async def test_long_answers_are_cut_over_udp_only() -> None:
    world = World()
    world.records["www.example.com."] = ["60 A " + "|".join(f"192.0.2.{number}" for number in range(1, 200))]
    responder = world.responder()
    wire = dns.message.make_query("www.example.com", "A").to_wire()
    short = await responder.respond(wire, CLIENT)
    whole = await responder.respond(wire, CLIENT, limit=65535)
    assert short is not None
    assert whole is not None
    assert len(short) <= 512 < len(whole)


@looped
async def test_the_log_says_once_what_is_asked_every_second(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAID", 10)
    world = World()
    world.blocks |= {f"h{number}.example.com": "list ads" for number in range(30)}
    responder = world.responder()
    with caplog.at_level("INFO", logger=module.__name__):
        for _ in range(5):
            await ask(responder, "h1.example.com")
        assert caplog.messages == ["10.1.0.2 asked for h1.example.com: blocked by list ads"]
        for number in range(30):
            await ask(responder, f"h{number}.example.com")
        await ask(responder, "h1.example.com")
    assert caplog.messages.count("10.1.0.2 asked for h1.example.com: blocked by list ads") == 2
    assert responder.counts["blocked"] == 36
