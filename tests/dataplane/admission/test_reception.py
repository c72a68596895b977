"""Clients before anybody has talked to them."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.admission.arrivals import Client
from marchproxy.model.appliance import Block
from marchproxy.policy.compile import compile_plan
from tests.dataplane.admission.desk import desk, explicit
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import ask, dial
from tests.policy.build import NOW, mapping, service, snapshot

LAN = service("lan", "127.0.0.1")
WEB = service("web", "127.0.0.2")
OUT = mapping("out", "lan", "web")


@looped
async def test_who_is_blocked_is_reset_unheard() -> None:
    async with desk(LAN, WEB, OUT) as at:
        blocked = compile_plan(replace(snapshot(LAN, WEB, OUT), blocks=(Block("127.0.0.1"),)), now=NOW).plan
        at.apply(replace(explicit(at.port, LAN, WEB, OUT), blocks=blocked.blocks))
        with pytest.raises(ConnectionResetError):
            await ask(at.port)
        assert at.reasons() == [("denied", "BLOCKED_SOURCE")]


@looped
async def test_who_leaves_without_a_word_is_no_refusal() -> None:
    async with desk(LAN, WEB, OUT) as at:
        async with dial(at.port) as (_, writer):
            writer.write_eof()
            await until(lambda: at.admission._gate.inside == 1)
        await until(lambda: at.admission._gate.inside == 0)
        assert at.events == []


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"NONSENSE\r\n\r\n", b"HTTP/1.1 400"),
        (b"\x04\x01\x00\x50\x7f\x00\x00\x02\x00", b"\x00\x5b"),
        (b"\x16\x03\x01\x00\x05hello", b"\x15"),
    ],
)
@looped
async def test_who_speaks_wrongly_is_told_and_counted(said: bytes, told: bytes) -> None:
    async with desk(LAN, WEB, OUT) as at:
        async with dial(at.port) as (reader, writer):
            writer.write(said)
            assert (await reader.read()).startswith(told)
        await until(lambda: len(at.events) == 1)
        assert at.reasons()[0][1] in {"MALFORMED", "UNSUPPORTED"}


def test_a_record_is_about_what_was_asked_for_or_the_listener() -> None:
    who = Client(ip_address("192.0.2.1"), 5000, ip_address("192.0.2.2"), 3128)
    assert (str(who.query().destination), who.query().port) == ("192.0.2.2", 3128)
    asked = who.query(ip_address("192.0.2.9"), 80)
    assert (str(asked.destination), asked.port) == ("192.0.2.9", 80)
