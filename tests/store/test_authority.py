"""authority: a CA of a cluster's own, and what clients make of what it signs."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from marchproxy.model.errors import InvalidValue
from marchproxy.store.authority import AUTHORITY_LIFETIME, make_authority, sign
from tests.certificates import authority, signed

NOW = datetime.now(UTC).replace(microsecond=0)


def loaded(chain: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(chain.encode())


def verify(chain: str, ca: str, name: str) -> None:
    """As strict clients do (RFC 5280)."""
    builder = PolicyBuilder().store(Store([loaded(ca)])).time(NOW)
    builder.build_server_verifier(x509.DNSName(name)).verify(loaded(chain), [])


def test_what_it_signs_is_trusted_by_who_trusts_it() -> None:
    made = signed("a.example", "*.b.example", "10.1.0.1", "fd00::1")
    assert made.facts.hosts == ("a.example", "*.b.example", "10.1.0.1", "fd00::1")
    for name in ("a.example", "x.b.example"):
        verify(made.chain, authority().chain, name)
    for chain, name in ((made.chain, "b.example"), (made.chain, "c.example")):
        with pytest.raises(VerificationError):
            verify(chain, authority().chain, name)
    with pytest.raises(VerificationError):
        verify(made.chain, authority("another").chain, "a.example")


def test_keys_are_each_its_own_and_the_ones_of_handshakes_quick() -> None:
    first, second = signed("a.example"), signed("a.example")
    assert first.key != second.key
    assert (first.facts.kind, authority().facts.kind) == ("EC P-256", "EC P-384")
    assert isinstance(load_pem_private_key(first.key, None), ec.EllipticCurvePrivateKey)


def test_a_ca_lasts_and_signs_no_other_ca() -> None:
    ca = make_authority("lab", NOW)
    assert ca.facts.expires == NOW + AUTHORITY_LIFETIME
    assert "lab" in ca.facts.subject
    constraints = loaded(ca.chain).extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    leaf = loaded(signed("a.example").chain).extensions.get_extension_for_class(x509.BasicConstraints).value
    assert leaf.ca is False


@pytest.mark.parametrize("days", [0, -1, 826])
def test_no_client_takes_longer(days: int) -> None:
    with pytest.raises(InvalidValue, match="days"):
        signed("a.example", days=days)


def test_nothing_outlives_the_ca() -> None:
    late = NOW + AUTHORITY_LIFETIME - timedelta(days=30)
    ca = authority()
    with pytest.raises(InvalidValue) as caught:
        sign(ca.chain, ca.key, ["a.example"], timedelta(days=60), late)
    assert "cert renew ca" in caught.value.hint


@pytest.mark.parametrize("host", ["", "two words", "a..b", "*", "10.1.0.0/16", "x" * 64 + ".example", "-"])
def test_hosts_are_names_or_addresses(host: str) -> None:
    with pytest.raises(InvalidValue, match="host"):
        signed("a.example", host)


def test_hosts_are_some_and_not_too_many() -> None:
    ca = authority()
    for hosts in ([], [f"h{number}.example" for number in range(101)]):
        with pytest.raises(InvalidValue, match="host"):
            sign(ca.chain, ca.key, hosts, timedelta(days=9), NOW)


def test_a_long_name_fits() -> None:
    name = ".".join(["n" * 60] * 4)
    assert signed(name).facts.hosts == (name,)
