"""Hosts and ports as clients write them."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.proxy.protocol.authority import (
    format_authority,
    read_authority,
    read_host,
    read_port,
)
from marchproxy.dataplane.proxy.protocol.exchange import Unfit


def test_names_are_folded_and_addresses_are_addresses() -> None:
    assert read_host("WWW.Example.COM.") == "www.example.com"
    assert read_host("192.0.2.1") == ip_address("192.0.2.1")
    assert read_host("2001:DB8::1") == ip_address("2001:db8::1")


NAMES = ["", ".", "a..b", "-a", "a b", "a\0b", "a%41", "*.a", "a" * 64, "\u212aelvin.example"]
NUMBERS = [
    "1",
    "127.1",
    "0177.0.0.1",
    "0x7f.1",
    "0x7f000001",
    "a.0x",
    "256.0.0.1",
    "fe80::1%1",
    "\uff11.2.3.4",
]


@pytest.mark.parametrize("text", NAMES + NUMBERS)
def test_what_is_neither_or_looks_like_both_is_refused(text: str) -> None:
    with pytest.raises(Unfit):
        read_host(text)


@pytest.mark.parametrize(
    "text",
    ["a:", ":1", "a:0", "a:01", "a:65536", "a:b", "a:1:2", "::1", "[::1", "::1]:2", "[a]:1", "[1.2.3.4]:1"],
)
def test_an_authority_is_host_and_port(text: str) -> None:
    with pytest.raises(Unfit):
        read_authority(text)


@given(st.text(max_size=20) | st.from_regex(r"\[?[0-9a-f.:]{0,12}\]?(:[0-9]{0,6})?", fullmatch=True))
def test_whatever_is_read_is_read_the_same_from_its_own_text(text: str) -> None:
    try:
        host, port = read_authority(text)
    except Unfit:
        return
    assert read_authority(format_authority(host, port)) == (host, port)


def test_a_port_is_a_plain_number() -> None:
    assert read_port("65535") == 65535
    with pytest.raises(Unfit):
        read_port("٣")
