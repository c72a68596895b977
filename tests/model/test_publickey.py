"""Public keys: what is one, and what must never pass for one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.model.errors import InvalidValue
from marchproxy.model.publickey import MAX_KEYS, decode, encode, parse_key, parse_keys, parse_set
from tests.model.strategies import KEYS

[RSA], [EC], [ED, NAMED] = KEYS.values()


@pytest.mark.parametrize("jwk", [RSA, EC, ED, NAMED])
def test_a_key_is_kept_as_it_came(jwk: dict[str, Any]) -> None:
    key = parse_key(jwk)
    assert key.document() == jwk
    assert parse_key(key.document()) == key


def test_what_issuers_add_is_left_out() -> None:
    assert (
        parse_key(EC | {"use": "sig", "alg": "ES256", "x5c": ["MII"], "key_ops": ["verify"]}).document() == EC
    )


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "-----BEGIN PUBLIC KEY-----",
        [],
        {},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "RSA"},
        RSA | {"n": "w" * 300},
        RSA | {"n": "w" * 1500},
        RSA | {"n": RSA["n"][:-1] + "A"},
        RSA | {"n": RSA["n"] + "="},
        RSA | {"n": 7},
        RSA | {"e": "AQAA"},
        RSA | {"e": "AQ"},
        RSA | {"e": "AQAAAAAB"},
        RSA | {"size": 2048},
        EC | {"crv": "P-384"},
        EC | {"x": EC["y"]},
        EC | {"x": "A" * 42},
        EC | {"y": "_" * 42 + "8"},
        EC | {"kid": 7},
        EC | {"kid": "a\nb"},
        EC | {"kid": "k" * 256},
        ED | {"crv": "X25519"},
        ED | {"x": ED["x"] + "AAAA"},
        ED | {"x": ED["x"][:-1] + "p"},
    ],
)
def test_what_is_no_public_key(raw: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_key(raw, field="jwt_keys")
    assert caught.value.field == "jwt_keys"


@pytest.mark.parametrize("field", ["d", "k", "p", "q", "dp", "dq", "qi", "oth"])
def test_a_private_key_is_refused_and_not_repeated(field: str) -> None:
    with pytest.raises(InvalidValue, match="jwt_keys") as caught:
        parse_key(EC | {field: "c2VjcmV0"})
    assert "private" in caught.value.expected
    assert "c2VjcmV0" not in f"{caught.value.message} {caught.value.hint}"


def test_keys_are_each_there_once_and_in_one_order() -> None:
    assert parse_keys([ED, NAMED, ED]) == parse_keys([NAMED, ED])
    assert len(parse_keys([ED, NAMED, ED])) == 2
    for wrong in ({"keys": [ED]}, [ED] * (MAX_KEYS + 1), [[ED]]):
        with pytest.raises(InvalidValue):
            parse_keys(wrong)


@given(st.binary(max_size=80))
def test_base64url_has_one_spelling(data: bytes) -> None:
    text = encode(data)
    assert decode(text) == data
    for other in (text + "=", text + "\n", "\n" + text, text + "====", text + "+"):
        with pytest.raises(ValueError, match="base64url"):
            decode(other)


@given(st.text(alphabet="AB_-yz=", max_size=9))
def test_any_text_is_decoded_or_refused(text: str) -> None:
    try:
        data = decode(text)
    except ValueError:
        return
    assert encode(data) == text


def test_of_a_set_what_is_understood_is_kept() -> None:
    """RFC 7517 section 5; the second one is what large issuers really add."""
    others: list[Any] = [
        {"kty": "oct", "k": "AAAA"},
        {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"},
        RSA | {"use": "enc"},
        RSA | {"alg": "RS512"},
    ]
    extra = {"issuer": "https://issuer.example/{tenant}", "cloud_instance_name": "x", "x5t": "AA"}
    found = parse_set({"keys": [*others, EC | {"use": "sig", "alg": "ES256"}, ED | extra], "more": 1})
    assert found == parse_keys([EC, ED])


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        {},
        {"keys": {}},
        {"keys": []},
        {"keys": ["text"]},
        {"keys": [{"kty": "oct", "k": "AAAA"}]},
        {"keys": [EC, RSA | {"d": "AAAA"}]},
        {"keys": [EC, ED | {"x": "AAAA"}]},
        {"keys": [ED | {"kid": str(number)} for number in range(MAX_KEYS + 1)]},
    ],
)
def test_what_is_no_set(raw: Any) -> None:
    with pytest.raises(InvalidValue, match="jwks"):
        parse_set(raw)
