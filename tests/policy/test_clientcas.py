"""One host, several CAs of clients: said by `check`."""

from marchproxy.policy.clientcas import several_authorities
from tests.clientcerts import ClientAuthority
from tests.policy import build
from tests.policy.build import mapping, service

ONE, TWO = ClientAuthority("one").pem, ClientAuthority("two").pem
SERVICES = service("lan", "10.1.0.0/16"), service("web", "10.2.0.1", port=80)


def found(*pairs: tuple[str, str, str]) -> list[str]:
    """What is said of mappings with these hosts, paths and CAs."""
    made = [
        mapping(
            f"m{number}", "lan", "web", "10.1.0.1:443", "https", tls="site",
            host=host, path_prefix=path, client_ca=authority,
        )
        for number, (host, path, authority) in enumerate(pairs)
    ]  # fmt: skip
    return [finding.subject for finding in several_authorities(build.plan(*SERVICES, *made))]


def test_the_same_host_with_another_ca_is_said() -> None:
    assert found(("a.example", "/", ONE), ("b.example", "/", TWO)) == []
    assert found(("a.example", "/x", ONE), ("a.example", "/y/z", ONE)) == []
    assert found(("a.example", "/x", ONE), ("a.example", "/longer", TWO)) == ["mapping m0"]
