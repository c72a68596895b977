"""What is taken for a JWT, and what is not."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.credentials.jws import Jwt, NotJwt, read, unsigned
from marchproxy.model.presented import MAX_SECRET
from tests.dataplane.credentials.jwts import NOW, SECRET, claims, jwt, part

HEADER = {"alg": "HS256"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def token(header: object, body: object, signature: str = "c2ln") -> str:
    return f"{part(header)}.{part(body)}.{signature}"


def test_everything_a_jwt_may_say() -> None:
    body = claims(iss="issuer", aud=["web", "db"], nbf=NOW - 5, jti="j", sub="ignored", more={"a": [1]})
    found = read(token(HEADER | {"kid": "k1", "typ": "JWT"}, body))
    assert found == Jwt(
        algorithm="HS256",
        kid="k1",
        issuer="issuer",
        audience=("web", "db"),
        expires=NOW + 3600,
        not_before=NOW - 5,
        jti="j",
        signed=f"{part(HEADER | {'kid': 'k1', 'typ': 'JWT'})}.{part(body)}".encode(),
        signature=b"sig",
    )


def test_the_least_a_jwt_must_say() -> None:
    found = read(token(HEADER, {"exp": NOW + 0.5}))
    assert (found.expires, found.not_before) == (NOW + 0.5, 0)
    assert (found.kid, found.issuer, found.audience, found.jti) == (None, None, None, None)


def test_what_is_written_can_be_read() -> None:
    text = unsigned({"alg": "HS256"}, {"exp": NOW, "aud": "größer"})
    assert read(f"{text}.").audience == ("größer",)
    assert "=" not in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b.c",
        token(HEADER, claims()) + ".x",
        token(HEADER, claims()).rpartition(".")[0],
        token(HEADER, claims()) + "=",
        token(HEADER, claims()) + "\n",
        "\n" + token(HEADER, claims()),
        token(HEADER, claims()).replace(".", "\0.", 1),
        token(HEADER, claims()) + "é",
        token(HEADER, claims(), signature="YR"),
        token([], claims()),
        token(HEADER, [claims()]),
        token(b'{"alg":"HS256","alg":"none"}', claims()),
        token(HEADER, b'{"exp":1,"exp":9999999999}'),
        token(HEADER, b"\xff"),
        token(HEADER, b"[" * 11_000),
        token(HEADER, b'{"exp":' + b"9" * 5000 + b"}"),
        token(HEADER, b'{"exp":NaN}'),
        token(HEADER, b'{"exp":Infinity}'),
        token(HEADER, b'{"exp":1e999}'),
        token(HEADER | {"crit": ["exp"]}, claims()),
        token({"kid": "k"}, claims()),
        token({"alg": None}, claims()),
        token({"alg": ["HS256"]}, claims()),
        token(HEADER | {"kid": 7}, claims()),
        token(HEADER, {}),
        token(HEADER, claims(exp=None, nbf=NOW)),
        token(HEADER, claims(exp="1800000000")),
        token(HEADER, claims(exp=True)),
        token(HEADER, claims(exp=-1)),
        token(HEADER, claims(exp=10**12)),
        token(HEADER, claims(nbf="yesterday")),
        token(HEADER, claims(iss=["issuer"])),
        token(HEADER, claims(aud=7)),
        token(HEADER, claims(aud=["web", 7])),
        token(HEADER, claims(jti="j" * 256)),
    ],
)
def test_what_is_no_jwt(text: str) -> None:
    with pytest.raises(NotJwt):
        read(text)


def test_long_ones_are_refused_unread() -> None:
    fits = MAX_SECRET - len(token(HEADER, claims()))
    assert read(token(HEADER, claims()) + "A" * (fits // 4 * 4)).expires == NOW + 3600
    with pytest.raises(NotJwt, match="too long"):
        read(jwt(SECRET, "HS256", claims(pad="x" * 1_000_000)))


@given(JSON, JSON, st.text(alphabet="abcABC019-_", max_size=12))
def test_any_json_is_read_or_refused(header: Any, body: Any, signature: str) -> None:
    texts = [token(json.dumps(header).encode(), json.dumps(body).encode(), signature)]
    if isinstance(body, dict):
        texts.append(token(HEADER, json.dumps({"exp": NOW} | body).encode(), signature))
    for text in texts:
        try:
            found = read(text)
        except NotJwt:
            continue
        assert 0 <= found.expires < 10**12
        assert found.signed.decode() == text.rpartition(".")[0]


@given(st.text(max_size=200) | st.text(alphabet="ey.J0=\0\n-_", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(NotJwt):
        assert read(text).signed == text.rpartition(".")[0].encode()
