"""Patterns for names of certificates, and revocation lists."""

from pathlib import Path

import pytest

from marchproxy.model.clientnames import name_fits, parse_client_name, parse_crl
from marchproxy.model.errors import InvalidValue
from tests.clientcerts import ClientAuthority


@pytest.mark.parametrize(
    ("pattern", "kind", "name", "fits"),
    [
        ("cn:alice", "cn", "alice", True),
        ("cn:alice", "cn", "ALICE", False),
        ("cn:alice", "ou", "alice", False),
        ("cn:*", "cn", "anybody", True),
        ("cn:*", "cn", "", False),
        ("cn:a.c", "cn", "abc", False),
        ("dns:*.example", "dns", "a.b.EXAMPLE", True),
        ("dns:*.example", "dns", ".example", False),
        ("dns:*.example", "dns", "a.example.evil", False),
        ("cn:a*", "cn", "a\nb", True),
        ("cn:alice", "cn", "alice\n", False),
    ],
)
def test_patterns(pattern: str, kind: str, name: str, fits: bool) -> None:
    assert name_fits(pattern, kind, name) is fits


@pytest.mark.parametrize("text", ["alice", "xx:alice", "cn:", "cn:" + "a" * 256, "cn:a\nb", ""])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_client_name(text, field="client_names")


def test_revocation_lists(tmp_path: Path) -> None:
    one, two = ClientAuthority("one"), ClientAuthority("two")
    both = one.revoking(one.client(tmp_path, "x")[1]) + "and a comment\n" + two.revoking()
    assert parse_crl(both, field="client_crl").count("BEGIN X509 CRL") == 2
    assert parse_crl(" \n", field="client_crl") == ""
    for wrong in ("text", one.pem, both[:100]):
        with pytest.raises(InvalidValue):
            parse_crl(wrong, field="client_crl")
