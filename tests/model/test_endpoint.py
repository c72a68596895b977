from ipaddress import ip_address

import pytest
from hypothesis import given

from marchproxy.model.endpoint import Endpoint, Endpoints, parse_endpoint, parse_endpoints
from marchproxy.model.errors import InvalidValue
from marchproxy.model.ports import PortRange
from tests.model.strategies import LISTEN_RANGES, LISTENS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1:443", Endpoint(ip_address("192.0.2.1"), 443)),
        ("[2001:DB8::1]:443", Endpoint(ip_address("2001:db8::1"), 443)),
        ("*:80", Endpoint(None, 80)),
        ("0.0.0.0:80", Endpoint(ip_address("0.0.0.0"), 80)),
        ("[::]:80", Endpoint(ip_address("::"), 80)),
    ],
)
def test_reads_address_and_port(text: str, expected: Endpoint) -> None:
    assert parse_endpoint(f" {text} ") == expected


@given(LISTENS)
def test_canonical_text_reads_back_as_the_same_endpoint(text: str) -> None:
    endpoint = parse_endpoint(text)
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        *("", "80", ":80", "192.0.2.1", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:http"),
        *("2001:db8::1:443", "[2001:db8::1:443", "[192.0.2.1]:443", "[[::1]]:443", "[fe80::1%eth0]:443"),
        *("host.example:443", "[]:80", "*", "192.0.2.1:" + "9" * 5000),
    ],
)
def test_refuses_what_cannot_be_opened(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_endpoint(text, field="listen")
    assert caught.value.field == "listen"
    assert "[IPV6]:PORT" in caught.value.hint


def test_says_which_part_is_wrong() -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_endpoint("192.0.2.1:99999")
    assert "a port number from 1 to 65535" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1:9000-9499", Endpoints(ip_address("192.0.2.1"), PortRange(9000, 9499))),
        ("[2001:DB8::1]:1-65535", Endpoints(ip_address("2001:db8::1"), PortRange(1, 65535))),
        ("*:80", Endpoints(None, PortRange(80, 80))),
        ("*:80-80", Endpoints(None, PortRange(80, 80))),
    ],
)
def test_reads_ranges_of_ports(text: str, expected: Endpoints) -> None:
    assert parse_endpoints(f" {text} ") == expected


@given(LISTENS | LISTEN_RANGES)
def test_canonical_text_reads_back_as_the_same_endpoints(text: str) -> None:
    endpoints = parse_endpoints(text)
    assert parse_endpoints(str(endpoints)) == endpoints


def test_one_port_of_a_range_is_written_as_one() -> None:
    assert str(parse_endpoints("*:80-80")) == "*:80"


@pytest.mark.parametrize(
    "text", ["*:90-80", "*:80-", "*:-80", "*:80-90-100", "*:80,81", "*:0-5", "2001:db8::1:80-90"]
)
def test_refuses_what_is_no_range(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_endpoints(text)
    assert "FIRST-LAST" in caught.value.hint


def test_the_appliance_itself_opens_one_port() -> None:
    with pytest.raises(InvalidValue):
        parse_endpoint("*:80-90")
