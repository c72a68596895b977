"""Addresses that a public name may not have, IPv4 inside IPv6 included."""

from ipaddress import ip_address

import pytest

from marchproxy.dataplane.names.rebinding import Rebinding
from marchproxy.model.address import IPAddress

OWN = ip_address("198.51.100.1")


def is_own(address: IPAddress) -> bool:
    return address == OWN


RULES = Rebinding(["db.corp.example", "*.lab.example"], is_own)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("0.0.0.0", "an unspecified address"),
        ("0.1.2.3", "an unspecified address"),
        ("10.0.0.1", "a private address"),
        ("10.255.255.255", "a private address"),
        ("100.64.0.1", "a private address"),
        ("127.0.0.53", "a loopback address"),
        ("169.254.169.254", "a link-local address"),
        ("172.16.0.1", "a private address"),
        ("172.31.255.255", "a private address"),
        ("192.168.1.1", "a private address"),
        ("224.0.0.251", "a multicast address"),
        ("255.255.255.255", "a reserved address"),
        ("::", "an unspecified address"),
        ("::1", "a loopback address"),
        ("::a00:1", "a private address inside IPv6"),
        ("64:ff9b::a00:1", "a private address inside IPv6"),
        ("64:ff9b::7f00:1", "a loopback address inside IPv6"),
        ("64:ff9b:1::1", "a private address"),
        ("2002:a00:1::1", "a private address inside IPv6"),
        ("2002:7f00:1::", "a loopback address inside IPv6"),
        ("fc00::1", "a private address"),
        ("fd12::1", "a private address"),
        ("fe80::1", "a link-local address"),
        ("fec0::1", "a private address"),
        ("ff02::fb", "a multicast address"),
        ("198.51.100.1", "the appliance's own address"),
    ],
)
def test_inward_addresses_are_refused_unless_allowed(text: str, what: str) -> None:
    address = ip_address(text)
    assert RULES.refusal("www.example.com", address) == what
    assert RULES.refusal("db.corp.example", address) == ""
    assert RULES.refusal("a.b.lab.example", address) == ""
    assert RULES.refusal("lab.example", address) == what


@pytest.mark.parametrize(
    "text",
    ["192.0.2.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "192.167.0.1", "8.8.8.8",
     "2001:db8::1", "64:ff9b::808:808", "2002:808:808::1", "2606:4700::1"],
)  # fmt: skip
def test_addresses_of_the_world_are_fine(text: str) -> None:
    assert RULES.refusal("www.example.com", ip_address(text)) == ""


@pytest.mark.parametrize("text", ["::ffff:10.0.0.1", "::ffff:8.8.8.8", "fe80::1%eth0"])
def test_what_no_plan_has_a_place_for_is_refused_to_everyone(text: str) -> None:
    for name in ("www.example.com", "db.corp.example"):
        assert RULES.refusal(name, ip_address(text)) == "no address of a host in the network"
