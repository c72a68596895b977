"""Orders at a CA that does everything right, and at one that does not."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_der_x509_csr, load_pem_x509_certificate

from marchproxy.client import acme
from marchproxy.client.acme import Acme
from marchproxy.client.asking import SourceFailed
from marchproxy.client.certorigin import Origin, check_origin
from marchproxy.model.publickey import decode, encode
from marchproxy.store.acmeaccounts import new_key
from tests.client.acmeca import Ca, Reply, problem, serving, signed_for
from tests.client.test_acmeresponder import free_port


class Account:
    """One in memory."""

    def __init__(self, meeting: Path = Path("/nowhere")) -> None:
        self.meeting = meeting
        self.pem = new_key()
        self.begun = 0

    def key(self) -> bytes:
        return self.pem

    def expect_free(self) -> None:
        """It is."""

    def begin(self) -> None:
        self.begun += 1


@pytest.fixture(name="ca")
def _ca() -> Iterator[Ca]:
    with serving(Ca()) as ca:
        ca.port = free_port()
        yield ca


def source(ca: Ca, account: Account, *, secret: str = "", **options: str) -> Acme:
    given = {"hosts": "WWW.example.,www.example,10.1.0.1", "listen": f"127.0.0.1:{ca.port}", **options}
    return Acme(check_origin(Origin("acme", f"{ca.url}/directory", given, secret=secret)), account)


def payloads(ca: Ca, path: str) -> list[Any]:
    return [payload for asked, payload in ca.asked if asked == path]


def test_a_certificate_is_ordered_and_its_account_kept(ca: Ca) -> None:
    account = Account()
    chain, key = source(ca, account, contact="admin@example.com").fetch()
    certificate, private = load_pem_x509_certificate(chain), load_pem_private_key(key, None)
    assert certificate.public_key() == private.public_key()
    wanted = [{"type": "dns", "value": "www.example"}, {"type": "ip", "value": "10.1.0.1"}]
    assert payloads(ca, "/newOrder") == [{"identifiers": wanted}]
    [looked, made] = payloads(ca, "/newAccount")
    assert looked["onlyReturnExisting"] is True
    assert made["contact"] == ["mailto:admin@example.com"]
    assert "termsOfServiceAgreed" not in made
    other = load_pem_private_key(source(ca, account).fetch()[1], None)
    assert other.public_key() != private.public_key()
    assert len(payloads(ca, "/newAccount")) == 3
    assert (len(ca.keys), account.begun) == (1, 2)


def test_a_host_is_proven_by_tls(ca: Ca) -> None:
    source(ca, Account(), challenge="tls-alpn-01").fetch()
    assert payloads(ca, "/challenge-tls") == [{}]
    assert not payloads(ca, "/challenge")


def test_listeners_that_nobody_can_bring_challenges_from_ask_no_ca(ca: Ca, tmp_path: Path) -> None:
    account = Account(tmp_path / "none")
    given = {"hosts": "www.example", "challenge": "tls-alpn-01"}
    with pytest.raises(SourceFailed, match="No such file") as raised:
        Acme(check_origin(Origin("acme", f"{ca.url}/directory", given)), account).fetch()
    assert "--challenge-listen" in raised.value.hint
    assert not ca.asked
    assert not account.begun


def test_terms_are_shown_before_there_is_an_account(ca: Ca) -> None:
    ca.meta = {"termsOfService": "https://ca.example/terms.pdf"}
    with pytest.raises(SourceFailed, match=r"https://ca\.example/terms\.pdf") as raised:
        source(ca, Account()).fetch()
    assert "--agree-terms" in raised.value.hint
    assert not ca.keys
    source(ca, Account(), terms="agreed").fetch()
    assert payloads(ca, "/newAccount")[-1]["termsOfServiceAgreed"] is True


def test_an_account_is_bound_to_another_one(ca: Ca) -> None:
    source(ca, Account(), key_id="kid-1", secret=encode(b"given by the CA")).fetch()
    bound = payloads(ca, "/newAccount")[-1]["externalAccountBinding"]
    assert b'"kid":"kid-1"' in decode(bound["protected"])


def test_a_nonce_that_is_forgotten_is_no_failure(ca: Ca) -> None:
    answers = iter([problem(400, "badNonce"), problem(400, "badNonce")])
    right = ca._newOrder
    ca.twists["/newOrder"] = lambda payload: next(answers, None) or right(payload)
    source(ca, Account()).fetch()
    ca.twists["/newOrder"] = lambda _: problem(400, "badNonce", "never")
    with pytest.raises(SourceFailed, match="badNonce: never"):
        source(ca, Account()).fetch()
    assert len(payloads(ca, "/newOrder")) == 6


def test_one_that_has_enough_says_until_when(ca: Ca) -> None:
    ca.twists["/newOrder"] = lambda _: problem(429, "rateLimited", "too many", **{"Retry-After": "7200"})
    with pytest.raises(SourceFailed, match="HTTP 429: rateLimited: too many") as raised:
        source(ca, Account()).fetch()
    assert raised.value.again == 7200
    ca.twists["/newOrder"] = lambda _: problem(503, "x", **{"Retry-After": "9" * 400})
    with pytest.raises(SourceFailed) as raised:
        source(ca, Account()).fetch()
    assert raised.value.again in (0.0, acme.LONGEST_REST)


def _failed(_: Any) -> Reply:
    error = {"type": "urn:ietf:params:acme:error:connection", "detail": "nobody\nthere"}
    challenge = {"type": "http-01", "status": "invalid", "error": error, "token": "x", "url": "y"}
    return Reply(
        200, {"status": "invalid", "challenges": [challenge], "identifier": {"value": "www.example"}}
    )


def _order(ca: Ca, **changed: Any) -> Callable[[Any], Reply]:
    return lambda _: Reply(201, ca._document() | changed, {"Location": f"{ca.url}/order"})


@pytest.mark.parametrize(
    ("path", "made", "said"),
    [
        ("/directory", lambda _: lambda _: Reply(200, b"<html>"), "no object of JSON"),
        ("/directory", lambda _: lambda _: Reply(200, b"[" * 100_000), "no object of JSON"),
        ("/directory", lambda _: lambda _: Reply(200, {}), "no 'newAccount'"),
        ("/directory", lambda _: lambda _: Reply(404, b"not here"), "HTTP 404"),
        ("/directory", lambda _: lambda _: Reply(200, b" " * 2_000_000), "longer than"),
        ("/directory", lambda _: lambda _: Reply(302, b"", {"Location": "/else"}), "HTTP 302"),
        ("/newAccount", lambda _: lambda _: Reply(200, {}), "no Location"),
        ("/newOrder", lambda ca: _order(ca, authorizations="x"), "no 'authorizations'"),
        ("/newOrder", lambda ca: _order(ca, authorizations=["http://10.0.0.1/x"]), "not its own"),
        ("/newOrder", lambda ca: _order(ca, authorizations=[f"{ca.url}@evil.example/"]), "not its own"),
        ("/newOrder", lambda ca: _order(ca, authorizations=[f"{ca.url}/x HTTP/1.1\r\nA: b"]), "not its own"),
        ("/newOrder", lambda ca: _order(ca, authorizations=["http://[/"]), "not its own"),
        ("/newOrder", lambda _: lambda _: problem(400, "rejectedIdentifier", "no\x1b[2J"), r"no\?\[2J"),
        (
            "/authorization",
            lambda _: _failed,
            r"authorization of www\.example is invalid: connection: nobody",
        ),
        (
            "/authorization",
            lambda _: lambda _: Reply(200, {"status": "pending", "challenges": 7}),
            "no challenge http-01",
        ),
        (
            "/authorization",
            lambda ca: (
                lambda _: Reply(
                    200,
                    {
                        "status": "pending",
                        "challenges": [{"type": "http-01", "token": "../x", "url": f"{ca.url}/challenge"}],
                    },
                )
            ),
            "the token of its challenge is none",
        ),
        ("/order", lambda ca: _order(ca, status="invalid", error={"detail": "changed my mind"}), "my mind"),
        ("/finalize", lambda _: lambda _: problem(403, "badCSR", "a bad one"), "badCSR: a bad one"),
        ("/certificate", lambda _: lambda _: Reply(200, b"\xff\x00 garbage"), "no certificate"),
        ("/certificate", lambda _: lambda _: Reply(200, b""), "no certificate"),
    ],
)
def test_what_is_no_answer_is_said(
    ca: Ca, path: str, made: Callable[[Ca], Callable[[Any], Reply]], said: str
) -> None:
    ca.twists[path] = made(ca)
    with pytest.raises(SourceFailed, match=said) as raised:
        source(ca, Account()).fetch()
    assert raised.value.message.isprintable()


def test_a_certificate_for_another_host_is_refused(ca: Ca) -> None:
    def other(payload: Any) -> Reply:
        reply = ca._finalize(payload)
        ca._chain = signed_for(load_der_x509_csr(decode(payload["csr"])), ca.life, "evil.example")
        return reply

    ca.twists["/finalize"] = other
    with pytest.raises(SourceFailed, match=r"not for www\.example, 10\.1\.0\.1"):
        source(ca, Account()).fetch()


def test_one_that_never_decides_is_left(ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acme, "PATIENCE", 0.5)
    error = {"type": "urn:ietf:params:acme:error:connection", "detail": "refused"}
    ca.twists["/order"] = _order(ca, status="pending", challenges=[{"error": error}])
    began = time.monotonic()
    with pytest.raises(SourceFailed, match="not done within 0 s; it is pending: connection: refused"):
        source(ca, Account()).fetch()
    assert time.monotonic() - began < 60


def test_the_ca_is_not_asked_where_nothing_can_be_answered(ca: Ca) -> None:
    account = Account()
    with pytest.raises(SourceFailed, match="cannot be answered"):
        source(ca, account, listen="203.0.113.1:80").fetch()
    assert not ca.asked
    assert not account.begun
