"""Which credential opens what, and what is said about those that open nothing."""

import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.credentials import book as books
from marchproxy.dataplane.credentials.book import CredentialBook, JwtService, Verified
from marchproxy.dataplane.credentials.jws import LEEWAY
from marchproxy.dataplane.credentials.signatures import Verifier, verifier
from marchproxy.model.entities import JwtAlgorithm
from marchproxy.model.presented import MAX_SECRET, Presented
from marchproxy.model.publickey import encode
from marchproxy.model.reason import Reason
from marchproxy.store.tokens import Token, digest
from tests.dataplane.credentials.jwts import (
    NOW,
    SECRET,
    Private,
    claims,
    ec_key,
    ed_key,
    jwt,
    part,
    public,
    rsa_key,
)

TIME = datetime.fromtimestamp(NOW, UTC)
HOUR = timedelta(hours=1)
TOKEN = "dG9rZW4tb2Ytd2ViLXdpdGgtMzItcmFuZG9tLWJ5dGVz"
HS = verifier(JwtAlgorithm.HS256, SECRET)
RS = verifier(JwtAlgorithm.RS256, [public(rsa_key(), "r1")])


def token(text: str = TOKEN, **more: Any) -> Token:
    own: dict[str, Any] = {
        "id": 7,
        "service": "web",
        "hash": digest(text),
        "jti": None,
        "created": TIME,
        **dict.fromkeys(("expires", "replaced", "revoked", "last_used")),
    }
    return Token(**own | more)


def issued(jti: str, **more: Any) -> Token:
    return token(jti, **{"id": 9, "service": "api", "jti": jti} | more)


def book(*tokens: Token, **jwt_services: Verifier | JwtService) -> CredentialBook:
    return CredentialBook(
        tokens,
        token_services=("web", "lab/web", "mail"),
        jwt_services=[
            item if isinstance(item, JwtService) else JwtService(name, item)
            for name, item in jwt_services.items()
        ],
    )


def verify(
    among: CredentialBook,
    secret: str,
    services: Collection[str] = ("web", "api"),
    *,
    service: str | None = None,
    now: datetime = TIME,
) -> Verified | Reason:
    return among.verify(Presented(secret, service), services, now)


def test_a_token_opens_its_service() -> None:
    assert verify(book(token()), TOKEN) == Verified("web", "7", None)


def test_nothing_presented_is_told_from_something_wrong() -> None:
    among = book(token())
    assert among.verify(None, ("web",), TIME) is Reason.AUTH_MISSING
    assert verify(among, "") is Reason.AUTH_MISSING
    assert verify(among, "x") is Reason.AUTH_INVALID


@pytest.mark.parametrize(
    "text",
    [
        TOKEN[:-1],
        TOKEN + "=",
        TOKEN + "\n",
        TOKEN + "\0",
        "\0" + TOKEN,
        TOKEN.lower(),
        TOKEN + "." + TOKEN + "." + TOKEN,
        "\ud800",
        "é" * 100,
        "x" * MAX_SECRET,
        "x" * 1_000_000,
        "." * 1_000_000,
        digest(TOKEN),
    ],
)
def test_any_other_text_opens_nothing(text: str) -> None:
    assert verify(book(token(), api=HS), text) is Reason.AUTH_INVALID


def test_a_token_opens_nothing_else() -> None:
    assert verify(book(token()), TOKEN, ("mail", "lab/web")) is Reason.AUTH_INVALID
    assert verify(book(token()), TOKEN, ()) is Reason.AUTH_INVALID


@pytest.mark.parametrize(
    ("service", "of", "opens"),
    [
        ("web", "web", True),
        ("web", "lab/web", True),
        ("lab/web", "lab/web", True),
        ("lab/web", "web", False),
        ("lab", "lab/web", False),
        ("mail", "web", False),
        ("", "web", False),
        ("WEB", "web", False),
        ("web\0", "web", False),
    ],
)
def test_a_name_that_is_given_has_to_be_the_service_s(service: str, of: str, opens: bool) -> None:
    found = verify(book(token(service=of)), TOKEN, ("mail", of), service=service)
    assert found == (Verified(of, "7", None) if opens else Reason.AUTH_INVALID)


def test_expired_is_told_from_revoked_and_from_wrong() -> None:
    ends = TIME + HOUR
    for among, now, wanted in [
        (book(token(expires=ends)), TIME, Verified("web", "7", ends)),
        (book(token(expires=ends)), ends, Reason.AUTH_EXPIRED),
        (book(token(expires=ends, replaced=ends - HOUR / 2)), TIME, Verified("web", "7", ends - HOUR / 2)),
        (book(token(expires=ends, replaced=ends + HOUR)), TIME, Verified("web", "7", ends)),
        (book(token(replaced=TIME)), TIME, Reason.AUTH_EXPIRED),
        (book(token(revoked=TIME)), TIME, Reason.AUTH_REVOKED),
        (book(token(revoked=TIME, expires=TIME)), TIME, Reason.AUTH_REVOKED),
    ]:
        assert verify(among, TOKEN, now=now) == wanted
    assert verify(book(token(expires=TIME)), TOKEN, ("mail",)) is Reason.AUTH_INVALID


def test_tokens_of_a_service_that_takes_none_any_more_open_nothing() -> None:
    among = CredentialBook([token()], token_services=("mail",))
    assert verify(among, TOKEN) is Reason.AUTH_INVALID
    jwts = CredentialBook([token()], jwt_services=[JwtService("web", HS)])
    assert verify(jwts, TOKEN) is Reason.AUTH_INVALID


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        (JwtAlgorithm.HS256, SECRET),
        (JwtAlgorithm.HS384, SECRET),
        (JwtAlgorithm.HS512, SECRET),
        (JwtAlgorithm.RS256, rsa_key()),
        (JwtAlgorithm.ES256, ec_key()),
        (JwtAlgorithm.EDDSA, ed_key()),
    ],
)
def test_a_jwt_of_each_algorithm_opens_its_service(algorithm: JwtAlgorithm, key: Any) -> None:
    keys = key if isinstance(key, bytes) else [public(key, "k")]
    among = book(api=verifier(algorithm, keys))
    ends = TIME + HOUR + timedelta(seconds=LEEWAY)
    for _ in range(2):
        assert verify(among, jwt(key, algorithm, claims(jti="j"))) == Verified("api", "jti:j", ends)
    assert verify(among, jwt(key, algorithm, claims())) == Verified("api", "jti:", ends)
    others: dict[str, Private] = {"HS": b"x" * 32, "RS": rsa_key(1), "ES": ec_key(1), "Ed": ed_key(1)}
    assert verify(among, jwt(others[algorithm[:2]], algorithm, claims())) is Reason.AUTH_INVALID


@pytest.mark.parametrize("named", ["none", "None", "NONE", "nOnE", "", "HS384", "HS512", "RS256", "hs256"])
def test_the_header_does_not_choose_the_algorithm(named: str) -> None:
    unsigned = jwt(SECRET, named, claims()).rpartition(".")[0]
    for text in (f"{unsigned}.", jwt(SECRET, named, claims())):
        assert verify(book(api=HS), text) is Reason.AUTH_INVALID


def test_a_public_key_is_no_secret() -> None:
    """The old trick: sign with HS256, and the issuer's public key in every form that it has as the secret."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    own = rsa_key().public_key()
    secrets = [
        own.public_bytes(encoding, form)
        for encoding in (Encoding.PEM, Encoding.DER)
        for form in (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1)
    ]
    secrets += [json.dumps(public(rsa_key()).document()).encode(), (public(rsa_key()).n or "").encode(), b""]
    for secret in secrets:
        for named in ("HS256", "HS384", "HS512", "RS256"):
            assert verify(book(api=RS), jwt(secret, named, claims())) is Reason.AUTH_INVALID


def test_keys_that_a_header_brings_are_not_believed() -> None:
    brought = {
        "jwk": public(rsa_key(1)).document(),
        "jku": "https://evil.example",
        "x5u": "https://evil.example",
    }
    assert verify(book(api=RS), jwt(rsa_key(1), "RS256", claims(), **brought)) is Reason.AUTH_INVALID
    assert isinstance(verify(book(api=RS), jwt(rsa_key(), "RS256", claims(), **brought)), Verified)


@pytest.mark.parametrize(
    ("service", "body", "opens"),
    [
        (JwtService("api", HS), claims(aud="api"), True),
        (JwtService("api", HS), claims(aud=["x", "api"]), True),
        (JwtService("api", HS), claims(aud="web"), False),
        (JwtService("api", HS), claims(aud=[]), False),
        (JwtService("api", HS), claims(aud="ap"), False),
        (JwtService("api", HS, audience="https://api"), claims(aud="https://api"), True),
        (JwtService("api", HS, audience="https://api"), claims(aud="api"), False),
        (JwtService("api", HS, audience="https://api"), claims(), False),
        (JwtService("api", HS, issuer="me"), claims(iss="me"), True),
        (JwtService("api", HS, issuer="me"), claims(iss="me "), False),
        (JwtService("api", HS, issuer="me"), claims(), False),
        (JwtService("api", HS), claims(iss="anybody"), True),
        (JwtService("api", HS), claims(exp=None), False),
    ],
)
def test_audience_and_issuer(service: JwtService, body: dict[str, Any], opens: bool) -> None:
    found = verify(book(api=service), jwt(SECRET, "HS256", body))
    assert isinstance(found, Verified) if opens else found is Reason.AUTH_INVALID


@pytest.mark.parametrize(
    ("body", "at", "wanted"),
    [
        ({"exp": NOW}, LEEWAY - 1, None),
        ({"exp": NOW}, LEEWAY, Reason.AUTH_EXPIRED),
        ({"exp": 0}, 0, Reason.AUTH_EXPIRED),
        ({"nbf": NOW + 100}, 100 - LEEWAY, None),
        ({"nbf": NOW + 100}, 99 - LEEWAY, Reason.AUTH_INVALID),
        ({"nbf": NOW + 100, "exp": NOW - 100}, 0, Reason.AUTH_EXPIRED),
        ({"exp": 253_402_200_000}, 0, None),
    ],
)
def test_time_and_leeway(body: dict[str, Any], at: float, wanted: Reason | None) -> None:
    found = verify(book(api=HS), jwt(SECRET, "HS256", claims(**body)), now=TIME + timedelta(seconds=at))
    assert isinstance(found, Verified) if wanted is None else found is wanted


def test_an_expired_jwt_that_is_forged_is_only_wrong() -> None:
    assert verify(book(api=HS), jwt(b"x", "HS256", claims(exp=1))) is Reason.AUTH_INVALID


@given(st.lists(st.integers(-10_000, 10_000), min_size=1, max_size=8))
def test_clocks_may_jump(jumps: list[int]) -> None:
    """What was seen before says nothing about the time: a remembered JWT is judged like a new one."""
    text, among = jwt(SECRET, "HS256", claims(nbf=NOW, exp=NOW + 600)), book(api=HS)
    for jump in jumps:
        now = TIME + timedelta(seconds=jump)
        assert verify(among, text, now=now) == verify(book(api=HS), text, now=now)
        assert isinstance(verify(among, text, now=now), Verified) == (-LEEWAY <= jump < 600 + LEEWAY)


def test_issued_jwts_have_a_record() -> None:
    text, ends = jwt(SECRET, "HS256", claims(jti="j")), TIME + HOUR + timedelta(seconds=LEEWAY)
    for record, wanted in [
        (issued("j"), Verified("api", "9", ends)),
        (issued("j", replaced=TIME + HOUR / 2), Verified("api", "9", TIME + HOUR / 2)),
        (issued("j", replaced=TIME), Reason.AUTH_EXPIRED),
        (issued("j", revoked=TIME - HOUR), Reason.AUTH_REVOKED),
        (issued("j", revoked=TIME, service="web"), Verified("api", "jti:j", ends)),
        (issued("i", revoked=TIME), Verified("api", "jti:j", ends)),
    ]:
        assert verify(book(record, api=HS), text) == wanted


def test_no_jti_can_pass_for_a_number() -> None:
    found = verify(book(issued("j"), api=HS), jwt(SECRET, "HS256", claims(jti="9")))
    assert isinstance(found, Verified)
    assert found.token == "jti:9"


def test_a_jti_is_no_token() -> None:
    assert verify(book(issued("jti-of-a-jwt"), api=HS), "jti-of-a-jwt") is Reason.AUTH_INVALID


def test_a_jwt_opens_the_service_that_it_is_for() -> None:
    among = book(api=HS, web=JwtService("lab/api", HS), other=RS)
    text = jwt(SECRET, "HS256", claims(aud="lab/api"))
    services = ("other", "api", "lab/api", "unknown")
    for _ in range(2):
        found = verify(among, text, services)
        assert isinstance(found, Verified)
        assert found.service == "lab/api"
    assert verify(among, text, services, service="other") is Reason.AUTH_INVALID
    assert verify(among, text, ("api",)) is Reason.AUTH_INVALID


def test_what_is_remembered_does_not_depend_on_who_asked_first() -> None:
    text = jwt(SECRET, "HS256", claims(jti="j"))
    record = issued("j", revoked=TIME)
    among = book(record, api=HS, web=HS)
    assert verify(among, text, ("api",)) is Reason.AUTH_REVOKED
    assert isinstance(verify(among, text, ("api", "web")), Verified)
    assert verify(among, text, ("api",)) is Reason.AUTH_REVOKED


def test_signatures_are_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []

    def check(text: bytes, signature: bytes) -> bool:
        calls.append(text)
        return True

    among = book(api=Verifier(JwtAlgorithm.HS256, ((None, check),)))
    monkeypatch.setattr(books, "MOST_SEEN", 2)
    texts = [jwt(SECRET, "HS256", claims(jti=str(number))) for number in range(3)]
    for text in (*texts[:2], *texts[:2]):
        verify(among, text)
    assert len(calls) == 2
    verify(among, texts[2])
    verify(among, texts[1])
    assert len(calls) == 3
    verify(among, texts[0])
    assert len(calls) == 4, "the one that was used longest ago is forgotten"


def test_forged_ones_are_not_remembered() -> None:
    among = book(api=HS)
    for number in range(50):
        verify(among, jwt(b"x", "HS256", claims(jti=str(number))))
    assert not among._seen


def test_what_a_stranger_can_have_checked_is_bounded() -> None:
    calls: list[bytes] = []

    def check(text: bytes, signature: bytes) -> bool:
        calls.append(text)
        return False

    many = {f"s{number}": Verifier(JwtAlgorithm.RS256, ((None, check),)) for number in range(100)}
    assert verify(book(**many), jwt(b"x", "RS256", claims()), tuple(many)) is Reason.AUTH_INVALID
    assert len(calls) == books.MOST_CHECKS


def test_a_key_that_nobody_knows_is_worth_a_look_at_the_issuer_s() -> None:
    among = book(api=RS)
    verify(among, jwt(rsa_key(1), "RS256", claims(), kid="r1"))
    verify(among, jwt(rsa_key(1), "RS256", claims()))
    verify(among, "x.y.z")
    assert among.unknown_keys == set()
    verify(among, jwt(rsa_key(1), "RS256", claims(), kid="r2"))
    assert among.unknown_keys == {"api"}


@given(st.text(max_size=300), st.none() | st.text(max_size=10))
def test_any_text_is_judged(text: str, service: str | None) -> None:
    found = verify(book(token(), api=HS), text, service=service)
    assert found in (Reason.AUTH_INVALID, Reason.AUTH_MISSING)


MUTATIONS = st.sampled_from(
    [
        {"alg": "none"},
        {"alg": "HS512"},
        {"alg": "HS256"},
        {"alg": "ES256"},
        {"iss": "other"},
        {"aud": "other"},
        {"aud": None},
        {"nbf": NOW + 3600},
        {"exp": None},
        {"exp": NOW - 3600},
        {"exp": "later"},
        {"crit": ["x"]},
        {"kid": "unknown"},
        {"key": "another"},
        {"flip": True},
    ]
)


@given(st.sampled_from(["RS256", "HS256"]), st.lists(MUTATIONS, min_size=1, max_size=3))
def test_one_thing_wrong_is_enough(algorithm: str, wrongs: list[dict[str, Any]]) -> None:
    keys: dict[str, tuple[Private, Private]] = {
        "RS256": (rsa_key(), rsa_key(1)),
        "HS256": (SECRET, b"another"),
    }
    own, other = keys[algorithm]
    wrong = {name: value for item in wrongs for name, value in item.items()}
    if wrong.get("alg") == algorithm:
        del wrong["alg"]
    if algorithm == "HS256":
        wrong.pop("kid", None)
    service = JwtService("api", {"RS256": RS, "HS256": HS}[algorithm], audience="api", issuer="me")
    body = claims(iss="me", aud="api") | {k: wrong[k] for k in ("iss", "aud", "nbf", "exp") if k in wrong}
    header = {k: wrong[k] for k in ("crit", "kid") if k in wrong}
    text = jwt(
        other if "key" in wrong else own,
        wrong.get("alg", algorithm),
        {name: value for name, value in body.items() if value is not None},
        **header,
    )
    if "flip" in wrong:
        head, _, signed = text.rpartition(".")
        text = f"{head}.{'B' if signed[0] == 'A' else 'A'}{signed[1:]}"
    found = verify(book(api=service), text)
    if wrong:
        assert found in (Reason.AUTH_INVALID, Reason.AUTH_EXPIRED)
    else:
        assert isinstance(found, Verified)


def test_no_secret_is_shown() -> None:
    assert TOKEN not in repr(token())
    assert TOKEN not in repr(Presented(TOKEN))
    assert part(claims()) not in repr(Presented(jwt(SECRET, "HS256", claims())))
    assert encode(SECRET) not in repr(JwtService("api", HS))
