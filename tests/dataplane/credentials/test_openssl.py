"""openssl: what is set by OpenSSL itself is what connections have; without it they have what they had."""

import ssl

import pytest

from marchproxy.dataplane.credentials import openssl
from marchproxy.dataplane.credentials.contexts import server_context
from tests.certificates import identity
from tests.dataplane.credentials.test_tickets import shake

LAST = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"


def client() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def agreed(server: ssl.SSLContext) -> list[str]:
    """The suites of TLS 1.3, best first."""
    return [each["name"] for each in server.get_ciphers() if each["protocol"] == "TLSv1.3"]


def test_suites_are_chosen_in_the_order_that_was_set() -> None:
    context = server_context(identity())
    assert agreed(context)[0] == "TLS_AES_128_GCM_SHA256"
    assert len(agreed(context)) == 3
    assert openssl.set_suites(context, LAST)
    assert agreed(context) == LAST.split(":")
    shake(context, client())


def test_suites_that_openssl_does_not_know_are_not_set() -> None:
    context = server_context(identity())
    assert not openssl.set_suites(context, "NOT_A_SUITE")
    shake(context, client())


def test_out_of_reach_nothing_is_set_and_everything_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssl, "_control", lambda: None)
    context = server_context(identity())
    assert not openssl.set_suites(context, LAST)
    assert not openssl.set_ticket_keys(context, bytes(openssl.KEYS_SIZE))
    assert len(agreed(context)) == 3
    shake(context, client())
