"""contexts: one for each certificate, until it is renewed."""

import os
import ssl
from dataclasses import replace

import pytest

from marchproxy.dataplane.credentials.contexts import Contexts, Unusable, server_context
from tests.certificates import identity


def test_a_context_is_made_once_and_anew_for_a_new_certificate() -> None:
    contexts = Contexts()
    assert contexts.server("proxy") is None
    one, other = identity(), identity("other")
    contexts.learn([one, other])
    held, beside = contexts.server("proxy"), contexts.server("other")
    assert held is not None
    assert contexts.server("proxy") is held
    assert contexts.server("proxy", ("http/1.1",)) is not held
    contexts.learn([identity(), replace(other)])
    assert contexts.server("proxy") is not held
    assert contexts.server("other") is beside
    contexts.learn([])
    assert contexts.server("proxy") is None


def test_old_versions_are_not_spoken() -> None:
    context = server_context(identity())
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert {cipher["kea"] for cipher in context.get_ciphers()} == {"kx-any", "kx-ecdhe"}
    assert all(cipher["aead"] for cipher in context.get_ciphers())


def test_what_the_library_does_not_take_is_no_context() -> None:
    broken = replace(identity(), key=b"no key")
    with pytest.raises(Unusable, match=r"certificate 'proxy'"):
        server_context(broken)
    contexts = Contexts()
    contexts.learn([broken])
    assert contexts.server("proxy") is None


def test_no_key_stays_in_a_file_that_others_could_open() -> None:
    before = set(os.listdir("/proc/self/fd"))
    server_context(identity())
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_key_is_in_no_text() -> None:
    assert "PRIVATE" not in repr(identity())
