from collections.abc import Callable
from ipaddress import ip_address

import pytest

from marchproxy.model import readers
from marchproxy.model.entities import JwtAlgorithm
from marchproxy.model.errors import InvalidValue


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.0.2.53", "192.0.2.53"),
        ("192.0.2.53:53", "192.0.2.53"),
        ("192.0.2.53:5353", "192.0.2.53:5353"),
        ("2001:DB8::53", "2001:db8::53"),
        ("[2001:db8::53]:53", "2001:db8::53"),
        ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
    ],
)
def test_resolvers(text: str, canonical: str) -> None:
    assert readers.parse_resolver(text, field="resolvers") == canonical
    assert readers.parse_resolver(canonical, field="resolvers") == canonical


def test_a_resolver_is_an_address_and_a_port() -> None:
    assert readers.resolver_address("192.0.2.53") == (ip_address("192.0.2.53"), 53)
    assert readers.resolver_address("[2001:db8::53]:5353") == (ip_address("2001:db8::53"), 5353)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *(
            (readers.parse_resolver, text)
            for text in ("", "*:53", "dns.example", "192.0.2.53:0", "fe80::1%e")
        ),
        *((readers.parse_host_rule, text) for text in ("", "10.0.0.1", "*", "*.*.a", "*.10.0.0.1", "a b")),
        *((readers.parse_blocked, text) for text in ("", "10.0.0.1/8", "*.*.a", "a/b")),
        *((readers.parse_single, text) for text in ("", "10.0.0.0/8", "db.example")),
        *((readers.parse_nat_address, text) for text in ("0.0.0.0", "::1", "ff02::1", "10.0.0.0/24")),
        *((readers.parse_path, text) for text in ("", "a", "/a b", "/" * 1025)),
    ],
)
def test_what_cannot_be_meant_names_field_and_value(parse: Callable[..., str], text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse(text, field="f")
    assert (caught.value.field, caught.value.value) == ("f", text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.0.2.1/32", "192.0.2.1"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("Bad.Example.", "bad.example"),
        ("*.Bad.Example", "*.bad.example"),
    ],
)
def test_what_can_be_blocked(text: str, canonical: str) -> None:
    assert readers.parse_blocked(text, field="name") == canonical


def test_lists_are_sorted_or_stay_in_order_but_hold_nothing_twice() -> None:
    raw = ["192.0.2.9", "192.0.2.10", "192.0.2.9:53"]
    assert readers.in_order(readers.parse_resolver)(raw, "f") == ("192.0.2.9", "192.0.2.10")
    assert readers.each(readers.parse_resolver, order=str)(raw, "f") == ("192.0.2.10", "192.0.2.9")
    assert sorted(["2001:db8::1", "10.0.0.2", "9.0.0.1"], key=readers.by_address) == [
        "9.0.0.1",
        "10.0.0.2",
        "2001:db8::1",
    ]


@pytest.mark.parametrize("raw", ["0" * 63, "0" * 65, "A" * 64, "g" * 64, 7, None])
def test_what_is_no_sha256(raw: object) -> None:
    with pytest.raises(InvalidValue):
        readers.sha256(raw, "sha256")


def test_only_one_text() -> None:
    assert readers.only("settings")("settings", "name") == "settings"
    with pytest.raises(InvalidValue, match="name: 'other'"):
        readers.only("settings")("other", "name")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("keep", "keep"),
        (" CUT ", "cut"),
        ("grace:600", "grace:600"),
        ("Grace:007", "grace:7"),
        ("grace:0", "cut"),
        ("grace:2592000", "grace:2592000"),
    ],
)
def test_what_a_tunnel_does_when_its_credential_expires(text: str, canonical: str) -> None:
    assert readers.parse_on_expiry(text) == canonical
    assert readers.parse_on_expiry(canonical) == canonical


@pytest.mark.parametrize(
    "text", ["", "grace", "grace:", "grace:-1", "grace:10m", "grace:2592001", "grace:\u0661", "600", "keep:5"]
)
def test_what_a_tunnel_cannot_do(text: str) -> None:
    with pytest.raises(InvalidValue, match="on_expiry"):
        readers.parse_on_expiry(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://issuer.example/keys.json?x=1",
        "https://issuer.example:8443",
        "https://10.0.0.1/",
        "http://127.0.0.1:8080/keys",
        "http://[::1]/keys",
        "http://localhost/keys",
    ],
)
def test_where_keys_may_be(text: str) -> None:
    assert readers.parse_jwks_url(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "keys.json",
        "http://issuer.example/keys",
        "http://10.0.0.1/keys",
        "http://localhost.example/keys",
        "http://127.0.0.1@issuer.example/keys",
        "ftp://issuer.example/keys",
        "file:///etc/shadow",
        "https://",
        "https://:8443/",
        "https://user:password@issuer.example/",
        "https://issuer.example/a b",
        "https://issuer.example/\r\nHost: x",
        "https://issuer.example/#fragment",
        "https://issuer.example:0/",
        "https://issuer.example:99999/",
        "https://[::1/",
        "https://größer.example/",
        "https://issuer.example/" + "x" * 1024,
    ],
)
def test_where_keys_may_not_be(text: str) -> None:
    with pytest.raises(InvalidValue, match="jwks_url"):
        readers.parse_jwks_url(text)


def test_choices_are_found_in_any_case() -> None:
    read = readers.choice(JwtAlgorithm)
    assert read("eddsa", "jwt_algorithm") is read("EdDSA", "jwt_algorithm") is JwtAlgorithm.EDDSA
    with pytest.raises(InvalidValue, match="'none'"):
        read("none", "jwt_algorithm")


@pytest.mark.parametrize("text", ["", "a\nb", "x" * 256])
def test_what_no_claim_can_be(text: str) -> None:
    with pytest.raises(InvalidValue, match="aud"):
        readers.parse_claim(text, field="aud")
