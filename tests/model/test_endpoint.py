from ipaddress import ip_address

import pytest
from hypothesis import given

from marchproxy.model.endpoint import Endpoint, parse_endpoint
from marchproxy.model.errors import InvalidValue
from tests.model.strategies import LISTENS


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
