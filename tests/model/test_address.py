from ipaddress import ip_network

import pytest
from hypothesis import given

from marchproxy.model.address import (
    Address,
    HostName,
    address_order,
    format_address,
    is_single,
    parse_address,
    parse_host_name,
    parse_ip,
    parse_prefix,
)
from marchproxy.model.errors import InvalidValue
from tests.model.strategies import HOSTS, prefixes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", ip_network("10.0.0.1/32")),
        (" 10.0.0.1 ", ip_network("10.0.0.1/32")),
        ("10.0.0.0/8", ip_network("10.0.0.0/8")),
        ("10.0.0.0/255.0.0.0", ip_network("10.0.0.0/8")),
        ("2001:DB8::1", ip_network("2001:db8::1/128")),
        ("::/0", ip_network("::/0")),
        ("DB.Example.com.", HostName("db.example.com")),
        ("localhost", HostName("localhost")),
        ("_sip._tcp.example.com", HostName("_sip._tcp.example.com")),
        ("1e5", HostName("1e5")),
    ],
)
def test_reads_what_operators_write(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10.0.0.5/24", "without host bits: 10.0.0.0/24"),
        ("2001:db8::5/32", "without host bits: 2001:db8::/32"),
        ("::ffff:192.0.2.1", "the IPv4 address itself: 192.0.2.1"),
        ("fe80::1%eth0", "without a zone"),
        ("fe80::%eth0/64", "without a zone"),
        ("10.0.0.0/33", "an IPv4 or IPv6 address, a prefix"),
        ("256.1.1.1", "an IPv4 or IPv6 address"),
        ("01.2.3.4", "an IPv4 or IPv6 address"),
        ("1.2.3", "an IPv4 or IPv6 address"),
        ("1", "an IPv4 or IPv6 address"),
        ("1.2.3.4/", "an IPv4 or IPv6 address"),
        ("٣.٣.٣.٣", "an IPv4 or IPv6 address"),
        ("", "host name such as"),
        ("a..b", "host name such as"),
        ("-a.example", "host name such as"),
        ("a-.example", "host name such as"),
        ("host.42", "host name such as"),
        ("x" * 64, "host name such as"),
        (".".join(["abcdefg"] * 32), "host name such as"),
        ("é.example", "host name such as"),
        ("*.", "host name such as"),
        ("*.*.example.com", "host name such as"),
        ("a.*.example.com", "host name such as"),
        ("*example.com", "host name such as"),
        ("*.10.0.0.1", "host name such as"),
        ("two words", "host name such as"),
    ],
)
def test_refuses_and_says_what_would_be_right(text: str, hint: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_address(text, field="addresses")
    assert caught.value.field == "addresses"
    assert caught.value.value == text
    assert hint in caught.value.hint


@given(prefixes() | HOSTS)
def test_canonical_text_reads_back_as_the_same_address(text: str) -> None:
    address = parse_address(text)
    assert parse_address(format_address(address)) == address


def test_a_single_address_is_written_without_a_length() -> None:
    assert format_address(parse_address("10.0.0.1/32")) == "10.0.0.1"
    assert format_address(parse_address("2001:db8::1/128")) == "2001:db8::1"
    assert format_address(parse_address("10.0.0.0/31")) == "10.0.0.0/31"
    assert format_address(HostName("a.example")) == str(HostName("a.example")) == "a.example"


def test_only_single_addresses_can_be_backends() -> None:
    assert is_single(parse_prefix("10.0.0.1"))
    assert is_single(parse_prefix("2001:db8::1"))
    assert not is_single(parse_prefix("10.0.0.0/31"))
    assert not is_single(parse_prefix("2001:db8::/127"))


def test_order_is_ipv4_then_ipv6_then_names_by_value() -> None:
    wanted = [
        "9.0.0.0/8",
        "10.0.0.0/8",
        "10.0.0.0/9",
        "10.0.0.1",
        "::1",
        "2001:db8::/32",
        "a.example",
        "b.example",
    ]
    shuffled = [parse_address(text) for text in reversed(wanted)]
    assert [format_address(address) for address in sorted(shuffled, key=address_order)] == wanted


@pytest.mark.parametrize(
    "text", ["10.0.0.1/32", "fe80::1%eth0", "::ffff:192.0.2.1", "host", "", "10.0.0.256"]
)
def test_one_address_is_neither_a_prefix_nor_zoned_nor_mapped(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_ip(text)


def test_one_address_of_either_family() -> None:
    assert str(parse_ip(" 10.0.0.1 ")) == "10.0.0.1"
    assert str(parse_ip("2001:DB8::1")) == "2001:db8::1"


def test_a_host_name_of_253_characters_is_the_longest() -> None:
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert parse_host_name(longest).name == longest
    with pytest.raises(InvalidValue):
        parse_host_name(longest + "b")


def test_a_wildcard_is_every_name_below() -> None:
    wildcard = parse_address("*.Example.COM.")
    assert wildcard == HostName("*.example.com")
    assert isinstance(wildcard, HostName)
    assert wildcard.wildcard
    assert wildcard.covers("a.example.com")
    assert wildcard.covers("b.a.example.com")
    assert not wildcard.covers("example.com")
    assert not wildcard.covers("badexample.com")
    plain = HostName("a.example.com")
    assert not plain.wildcard
    assert plain.covers("a.example.com")
    assert not plain.covers("b.a.example.com")


def test_a_wildcard_only_where_it_is_wanted() -> None:
    with pytest.raises(InvalidValue, match=r"\*\.example"):
        parse_host_name("*.example.com")
    assert parse_host_name("*.example.com", wildcard=True).wildcard
