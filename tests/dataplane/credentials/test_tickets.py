"""tickets: sessions are resumed by whoever has the same secret, for the same purpose, and by nobody else."""

import ssl
import time
from pathlib import Path

import pytest

from marchproxy.dataplane.credentials import openssl, tickets
from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.credentials.tickets import Tickets
from marchproxy.policy.plan import ClientTls
from tests.certificates import identity
from tests.clientcerts import ClientAuthority, showing

OURS, THEIRS = ClientAuthority("ours"), ClientAuthority("theirs")
ONE, TWO = b"1" * 32, b"2" * 32


def workers(count: int = 2) -> list[Contexts]:
    made = [Contexts() for _ in range(count)]
    for each in made:
        each.share(ONE)
        each.learn([identity("one"), identity("two")])
    return made


def shake(
    server: ssl.SSLContext | None, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[bool, ssl.SSLSession, bytes | None]:
    """Whether the session went on, the next one, and the certificate that the server knows of the client."""
    assert server is not None
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(down, up, server_hostname="one.example", session=session)
    there = server.wrap_bio(up, down, server_side=True)
    for each in (here, there) * 3:
        try:
            each.do_handshake()
        except ssl.SSLWantReadError:
            continue
    there.write(b"hello")
    assert here.read(5) == b"hello"
    assert here.session is not None
    return bool(there.session_reused), here.session, there.getpeercert(binary_form=True)


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> ssl.SSLContext:
    made = showing(OURS.client(tmp_path, "alice")[0])
    made.maximum_version = request.param
    return made


def test_any_worker_goes_on_with_what_another_began(client: ssl.SSLContext) -> None:
    first, second = workers()
    reused, session, _ = shake(first.server("one"), client)
    assert not reused
    assert shake(second.server("one"), client, session)[0]
    stranger = Contexts()
    stranger.learn([identity("one")])
    assert not shake(stranger.server("one"), client, session)[0]


def test_a_renewed_certificate_ends_no_session(client: ssl.SSLContext) -> None:
    first, second = workers()
    session = shake(first.server("one"), client)[1]
    before = second.server("one")
    second.learn([identity("one", "new.example")])
    assert second.server("one") is not before
    assert shake(second.server("one"), client, session)[0]


def test_a_session_of_several_certificates_goes_on_where_they_are_the_same(client: ssl.SSLContext) -> None:
    first, second = workers()
    session = shake(first.choosing(("one", "two"), ()), client)[1]
    assert shake(second.choosing(("one", "two"), ()), client, session)[0]
    assert not shake(second.choosing(("two", "one"), ()), client, session)[0]
    assert not shake(second.server("one"), client, session)[0]


def test_a_session_is_of_what_was_asked_of_the_client(client: ssl.SSLContext) -> None:
    first, second = workers()
    ours = ClientTls(OURS.pem, "")
    listed = ClientTls(OURS.pem, OURS.revoking())
    both = ClientTls(OURS.pem + THEIRS.pem, "")
    open_session = shake(first.server("one"), client)[1]
    session = shake(first.asking("one", (), ours, required=True), client)[1]
    reused, _, certificate = shake(second.asking("one", (), ours, required=True), client, session)
    assert reused
    assert certificate is not None
    for asked, required in ((listed, True), (both, True), (ours, False)):
        assert not shake(second.asking("one", (), asked, required=required), client, session)[0]
    assert not shake(second.asking("two", (), ours, required=True), client, session)[0]
    assert not shake(second.asking("one", ("h2",), ours, required=True), client, session)[0]
    assert not shake(second.asking("one", (), ours, required=True), client, open_session)[0]
    assert not shake(second.server("one"), client, session)[0]


def test_with_another_secret_everybody_begins_anew(client: ssl.SSLContext) -> None:
    [contexts] = workers(1)
    made = contexts.server("one"), contexts.choosing(("one", "two"), ())
    sessions = [shake(each, client)[1] for each in made]
    contexts.share(TWO)
    for context, session in zip(made, sessions, strict=True):
        reused, following, _ = shake(context, client, session)
        assert not reused
        assert shake(context, client, following)[0]


def test_a_secret_of_ours_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    own, given = Tickets(), Tickets(ONE)
    before = own.secret
    assert not own.renew()
    later = time.monotonic() + tickets.LIFETIME
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert own.renew()
    assert own.secret != before
    assert not own.renew()
    assert not given.renew()
    assert given.secret == ONE


def test_contexts_of_one_process_renew_their_keys(
    client: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts = Contexts()
    contexts.learn([identity("one")])
    session = shake(contexts.server("one"), client)[1]
    assert shake(contexts.server("one"), client, session)[0]
    later = time.monotonic() + tickets.LIFETIME
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not shake(contexts.server("one"), client, session)[0]


def test_where_openssl_is_out_of_reach_contexts_serve_all_the_same(
    client: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openssl, "_control", lambda: None)
    first, second = workers()
    session = shake(first.server("one"), client)[1]
    assert shake(first.server("one"), client, session)[0]
    assert not shake(second.server("one"), client, session)[0]
