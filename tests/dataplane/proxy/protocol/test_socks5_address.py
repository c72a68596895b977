"""Addresses on the wire of SOCKS5."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.dataplane.proxy.protocol.socks5_address import SocksUnfit, format_address, read_address


@given(st.ip_addresses(), st.integers(0, 65535), st.binary(max_size=3))
def test_an_address_is_read_as_it_was_written(
    address: IPv4Address | IPv6Address, port: int, behind: bytes
) -> None:
    wire = format_address(address, port)
    assert read_address(b"xy" + wire + behind, 2) == (address, port, 2 + len(wire))
    assert all(read_address(wire[:length], 0) is None for length in range(len(wire)))


def test_a_domain_is_a_host_name_or_the_text_of_an_address() -> None:
    assert read_address(b"\x03\x09Example.a\x01\xbb", 0) == ("example.a", 443, 13)
    assert read_address(b"\x03\x03::1\x00\x16", 0) == (ip_address("::1"), 22, 7)


@pytest.mark.parametrize(
    "domain", [b"", b".", b"a b", b"a\0", b"\xfc.de", b"127.1", b"[::1]", b"a:1", b"a" * 255]
)
def test_any_other_domain_is_refused(domain: bytes) -> None:
    with pytest.raises(Unfit):
        read_address(b"\x03" + bytes((len(domain),)) + domain + b"\0\1", 0)


def test_an_unknown_type_has_a_code_of_its_own() -> None:
    with pytest.raises(SocksUnfit) as unfit:
        read_address(b"\x02", 0)
    assert unfit.value.code == 8
