"""Who may have a tunnel: names open services, and never the inside by themselves."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from marchproxy.model.address import IPAddress
from marchproxy.model.appliance import Block, Settings
from marchproxy.model.entities import Mapping, Service
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.compile import compile_plan
from marchproxy.policy.evaluate import Answer, Evaluator
from marchproxy.policy.plan import Plan
from marchproxy.policy.tunnels import TunnelEvaluator, Wish, plain
from tests.policy.build import NOW, OWN, mapping, plan, service, snapshot

LAN = service("lan", "10.0.0.0/16")
WORLD = service("world", "*.example.com", "www.example.net")
OUT = mapping("out", "lan", "world", ports="443")
CLIENT = "10.0.0.7"
PUBLIC = "198.51.100.1"


def evaluator(made: Plan) -> TunnelEvaluator:
    return TunnelEvaluator(Evaluator(made), OWN.__contains__)


def ask(
    *entities: Service | Mapping,
    name: str = "",
    address: str = PUBLIC,
    port: int = 443,
    source: str = CLIENT,
    settings: Settings | None = None,
    transport: Transport = Transport.TCP,
) -> Answer:
    made = plan(*entities)
    made = replace(made, settings=settings) if settings else made
    wish = Wish(ip_address(source), name, ip_address(address), port, transport)
    return evaluator(made).evaluate(wish)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("www.example.com", Reason.FORWARDED),
        ("deep.www.example.com", Reason.FORWARDED),
        ("www.example.net", Reason.FORWARDED),
        ("example.com", Reason.NO_MAPPING),
        ("x.www.example.net", Reason.NO_MAPPING),
        ("www.example.com.evil.test", Reason.NO_MAPPING),
        ("", Reason.NO_MAPPING),
    ],
)
def test_a_name_says_which_services_are_meant(name: str, reason: Reason) -> None:
    assert ask(LAN, WORLD, OUT, name=name).reason is reason


def test_a_name_opens_no_other_port_protocol_or_source() -> None:
    assert ask(LAN, WORLD, OUT, name="www.example.com", port=80).reason is Reason.NO_MAPPING
    assert ask(LAN, WORLD, OUT, name="www.example.com", source="10.1.0.1").reason is Reason.NO_MAPPING
    answer = ask(LAN, WORLD, OUT, name="www.example.com", transport=Transport.UDP)
    assert answer.reason is Reason.NO_MAPPING


INWARD = [
    "0.0.0.0", "10.9.9.9", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1",
    "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "64:ff9b:1::1",
    "::ffff:10.9.9.9", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "::10.9.9.9", "::127.0.0.1",
    "64:ff9b::10.9.9.9", "64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254",
    "2002:a09:909::1", "2002:7f00:1::", "2002:a9fe:a9fe::1",
    "192.0.2.1", "::ffff:192.0.2.1", "64:ff9b::192.0.2.1", "2002:c000:201::", "2001:db8::1",
    "fd00:ec2::254", "100.100.100.200",
    "168.63.129.16", "::ffff:168.63.129.16", "::168.63.129.16", "64:ff9b::a83f:8110", "2002:a83f:8110::1",
]  # fmt: skip
"""Every way inwards, those to the appliance itself (192.0.2.1, 2001:db8::1) included."""


@pytest.mark.parametrize("address", INWARD)
@pytest.mark.parametrize(
    ("to", "name"), [("world", "www.example.com"), ("all", "www.example.com"), ("external", "else.test")]
)
def test_a_name_never_leads_inwards_by_itself(address: str, to: str, name: str) -> None:
    answer = ask(LAN, WORLD, mapping("out", "lan", to), name=name, address=address)
    assert (answer.verdict, answer.reason) == (Verdict.DENY, Reason.PRIVATE_ADDRESS)


@pytest.mark.parametrize("address", INWARD)
def test_audit_does_not_lead_inwards_either(address: str) -> None:
    audited = mapping("out", "lan", "world", audit=True)
    answer = ask(LAN, WORLD, audited, name="www.example.com", address=address)
    assert (answer.verdict, answer.keeps) == (Verdict.DENY, False)


@pytest.mark.parametrize("address", INWARD)
def test_a_mapping_to_that_very_address_does(address: str) -> None:
    meant = service("meant", str(plain(ip_address(address))))
    wanted = (LAN, WORLD, meant, OUT, mapping("in", "lan", "meant"))
    assert ask(*wanted, name="www.example.com", address=address).reason is Reason.FORWARDED
    assert ask(*wanted, address=address).reason is Reason.FORWARDED


@pytest.mark.parametrize("address", ["10.9.9.9", "192.168.1.1", "fc00::1"])
def test_private_addresses_may_be_meant_by_their_network(address: str) -> None:
    inside = service("inside", "10.0.0.0/8", "192.168.0.0/16", "fc00::/7")
    wanted = (LAN, inside, mapping("in", "lan", "inside"))
    assert ask(*wanted, name="db.example.org", address=address).reason is Reason.FORWARDED
    assert ask(*wanted, address=address).reason is Reason.FORWARDED


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "169.254.169.254", "192.0.2.1", "::1", "fe80::1", "64:ff9b::10.9.9.9"),
        *("2002:a09:909::1", "168.63.129.16", "64:ff9b::a83f:8110", "fd00:ec2::254", "100.100.100.200"),
    ],
)
@pytest.mark.parametrize("to", ["all", "external", "wide"])
def test_addresses_of_one_host_are_not_meant_by_a_network(address: str, to: str) -> None:
    wide = service("wide", "0.0.0.0/0", "::/0")
    wanted = (LAN, mapping("out", "lan", to), wide) if to == "wide" else (LAN, mapping("out", "lan", to))
    assert ask(*wanted, address=address).reason is Reason.PRIVATE_ADDRESS


def test_an_address_in_a_request_is_judged_by_routing_s_rules() -> None:
    assert ask(LAN, mapping("out", "lan", "external"), address="10.9.9.9").reason is Reason.FORWARDED
    assert ask(LAN, mapping("out", "lan", "external"), address="::ffff:10.9.9.9").reason is Reason.FORWARDED


@pytest.mark.parametrize("address", ["10.9.9.9", "127.0.0.1", "192.0.2.1"])
def test_names_that_may_be_inside_are_named_in_the_settings(address: str) -> None:
    trusted = Settings(private_answers=("*.example.com",))
    found = ask(LAN, WORLD, OUT, name="www.example.com", address=address, settings=trusted)
    assert found.reason is Reason.FORWARDED
    other = ask(LAN, WORLD, OUT, name="www.example.net", address=address, settings=trusted)
    assert other.reason is Reason.PRIVATE_ADDRESS


def test_a_deny_by_address_comes_before_an_allow_by_name() -> None:
    bad = service("bad", PUBLIC)
    wanted = (LAN, WORLD, bad, OUT, mapping("no", "lan", "bad", action="deny", priority=1))
    assert ask(*wanted, name="www.example.com").reason is Reason.DENY_MAPPING


@pytest.mark.parametrize(
    ("entry", "name", "source", "address", "reason"),
    [
        ("www.example.com", "www.example.com", CLIENT, PUBLIC, Reason.BLOCKED_DESTINATION),
        ("www.example.com", "x.example.com", CLIENT, PUBLIC, Reason.FORWARDED),
        ("*.example.com", "x.example.com", CLIENT, PUBLIC, Reason.BLOCKED_DESTINATION),
        (PUBLIC, "www.example.com", CLIENT, PUBLIC, Reason.BLOCKED_DESTINATION),
        (PUBLIC, "www.example.com", CLIENT, f"::ffff:{PUBLIC}", Reason.BLOCKED_DESTINATION),
        (PUBLIC, "www.example.com", CLIENT, f"64:ff9b::{PUBLIC}", Reason.BLOCKED_DESTINATION),
        (CLIENT, "www.example.com", CLIENT, PUBLIC, Reason.BLOCKED_SOURCE),
    ],
)
def test_blocks_hold_for_names_and_addresses(
    entry: str, name: str, source: str, address: str, reason: Reason
) -> None:
    made = replace(snapshot(LAN, WORLD, OUT), blocks=(Block(entry),))
    asked = Wish(ip_address(source), name, ip_address(address), 443)
    found = evaluator(compile_plan(made, now=NOW).plan).evaluate(asked)
    assert found.reason is reason
    assert bool(found.blocked_by) is (reason is not Reason.FORWARDED)


@pytest.mark.parametrize(
    ("fields", "openers"),
    [
        ({}, ("keys",)),
        ({"auth_required": True}, ("keys",)),
    ],
)
def test_credentials_of_the_services_at_both_ends_open_it(
    fields: dict[str, Any], openers: tuple[str, ...]
) -> None:
    keys, other = (
        service(name, address, auth="token")
        for name, address in (("keys", PUBLIC), ("other", "198.51.100.9"))
    )
    found = ask(LAN, keys, other, mapping("m", "lan", "keys,other", **fields))
    assert (found.reason, found.openers) == (Reason.AUTH_MISSING, openers)


@pytest.mark.parametrize(
    ("source", "port", "may"),
    [(CLIENT, 443, True), (CLIENT, 80, False), (CLIENT, 0, True), ("10.1.0.1", 443, False)],
)
def test_who_may_go_nowhere_may_not_ask(source: str, port: int, may: bool) -> None:
    asked = evaluator(plan(LAN, WORLD, OUT, mapping("no", "all", "all", action="deny", priority=200)))
    assert asked.may_ask(ip_address(source), port, Transport.TCP) is may
    assert not asked.may_ask(ip_address(source), 0, Transport.UDP)


def test_mapped_addresses_are_what_a_socket_makes_of_them() -> None:
    mapped: IPAddress = ip_address("::ffff:192.0.2.9")
    assert plain(mapped) == ip_address("192.0.2.9")
    assert plain(ip_address("2001:db8::9")) == ip_address("2001:db8::9")
