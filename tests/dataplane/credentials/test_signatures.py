"""Signatures: the examples of the RFCs, and that no key serves as another kind of key."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.credentials.signatures import sign, verifier
from marchproxy.model.entities import JwtAlgorithm
from marchproxy.model.publickey import PublicKey, decode, encode, parse_key
from tests.dataplane.credentials.jwts import SECRET, Private, ec_key, ed_key, public, rsa_key, signature

CLAIMS = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
RFC_7515_A1 = (
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
    f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{CLAIMS}",
    "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
)
RFC_7515_A2 = (
    {
        "kty": "RSA",
        "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0B"
        "m4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5"
        "z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7"
        "aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        "e": "AQAB",
    },
    f"eyJhbGciOiJSUzI1NiJ9.{CLAIMS}",
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdb"
    "F9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383"
    "LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWy"
    "wlVmtVrBp0igcN_IoypGlUPQGe77Rw",
)
RFC_7515_A3 = (
    {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    },
    f"eyJhbGciOiJFUzI1NiJ9.{CLAIMS}",
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
)
RFC_8037_A4 = (
    {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
)
PRIVATE: dict[JwtAlgorithm, Callable[[], Private]] = {
    JwtAlgorithm.RS256: rsa_key,
    JwtAlgorithm.ES256: ec_key,
    JwtAlgorithm.EDDSA: ed_key,
}
KEYED = (JwtAlgorithm.HS256, JwtAlgorithm.HS384, JwtAlgorithm.HS512)


def good(algorithm: JwtAlgorithm, keys: list[PublicKey] | bytes, text: str, given: str) -> bool:
    return any(check(text.encode(), decode(given)) for _, check in verifier(algorithm, keys).checks)


@pytest.mark.parametrize(
    ("algorithm", "example"),
    [
        (JwtAlgorithm.RS256, RFC_7515_A2),
        (JwtAlgorithm.ES256, RFC_7515_A3),
        (JwtAlgorithm.EDDSA, RFC_8037_A4),
    ],
)
def test_examples_of_the_rfcs(algorithm: JwtAlgorithm, example: tuple[dict[str, Any], str, str]) -> None:
    jwk, text, given = example
    assert good(algorithm, [parse_key(jwk)], text, given)
    assert not good(algorithm, [parse_key(jwk)], text + "x", given)
    assert not good(algorithm, [parse_key(jwk)], text, given[:-4] + "AAAA")
    assert not good(algorithm, [parse_key(jwk)], text, "")


def test_the_example_of_a_secret() -> None:
    secret, text, given = RFC_7515_A1
    assert good(JwtAlgorithm.HS256, decode(secret), text, given)
    assert not good(JwtAlgorithm.HS512, decode(secret), text, given)
    assert encode(sign(JwtAlgorithm.HS256, decode(secret), text.encode())) == given


@pytest.mark.parametrize("algorithm", KEYED)
def test_what_is_signed_here_is_right(algorithm: JwtAlgorithm) -> None:
    made = sign(algorithm, SECRET, b"text")
    assert good(algorithm, SECRET, "text", encode(made))
    assert made == signature(SECRET, algorithm, b"text")
    for wrong in (made[:-1], made + b"\0", b"", made[::-1]):
        assert not good(algorithm, SECRET, "text", encode(wrong))


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_public_key_is_no_secret(algorithm: JwtAlgorithm) -> None:
    key = public(PRIVATE[algorithm]())
    for keyed in KEYED:
        with pytest.raises(TypeError, match="has a secret"):
            verifier(keyed, [key])
    with pytest.raises(TypeError, match="HS256, HS384 and HS512 only"):
        verifier(algorithm, SECRET)


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_keys_of_another_kind_are_left_out(algorithm: JwtAlgorithm) -> None:
    keys = [public(make(), kid=own) for own, make in PRIVATE.items()]
    assert verifier(algorithm, keys).names == {algorithm}
    others = [key for key in keys if key.kid != algorithm]
    assert verifier(algorithm, others).checks == ()


def test_a_jwt_is_checked_with_the_key_that_it_names() -> None:
    keys = [public(ed_key(1), "one"), public(ed_key(2), "two"), public(ed_key(3))]
    found = verifier(JwtAlgorithm.EDDSA, keys)
    made = {number: ed_key(number).sign(b"text") for number in (1, 2, 3)}

    def opens(number: int, kid: str | None) -> bool:
        return any(check(b"text", made[number]) for check in found.candidates(kid))

    assert [opens(1, "one"), opens(1, "two"), opens(1, None), opens(1, "other")] == [True, False, True, False]
    assert opens(3, "other"), "a key without a name may be any"
    assert len(found.candidates("two")) == 2


@given(st.binary(max_size=600))
def test_any_signature_is_judged(given_bytes: bytes) -> None:
    for algorithm, make in PRIVATE.items():
        assert not good(algorithm, [public(make())], "text", encode(given_bytes))


def test_no_secret_is_shown() -> None:
    shown = repr(verifier(JwtAlgorithm.HS256, SECRET))
    assert str(SECRET)[2:-1] not in shown
    assert "HS256" in shown
