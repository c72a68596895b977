"""What is said about a source, and what cannot be meant."""

from typing import Any

import pytest

from marchproxy.client.certorigin import Origin, check_origin, hosts_of, issues
from marchproxy.model.errors import InvalidValue

DIRECTORY = "https://ca.example/directory"
GOOD = {"hosts": "www.example", "listen": "*:80"}


def acme(secret: str = "", **options: str) -> Origin:
    return Origin("acme", DIRECTORY, GOOD | options, secret=secret)


def test_hosts_of_acme_are_written_as_certificates_do() -> None:
    origin = check_origin(acme(hosts="WWW.Example.,www.example,10.1.0.1,2001:DB8::0:1"))
    assert hosts_of(origin) == ("www.example", "10.1.0.1", "2001:db8::1")
    assert issues(origin)


def test_an_external_account_has_a_key() -> None:
    check_origin(acme(key_id="kid", secret="c2VjcmV0"))
    check_origin(acme(key_id="kid", secret="c2VjcmV0LQ=="))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"hosts": ""}, "hosts"),
        ({"hosts": "*.example.com"}, "hosts"),
        ({"hosts": "www.example,"}, "hosts"),
        ({"hosts": "www.example,../x"}, "hosts"),
        ({"hosts": ",".join(f"h{number}.example" for number in range(101))}, "hosts"),
        ({"contact": "admin"}, "contact"),
        ({"contact": "a@example,b@example"}, "contact"),
        ({"contact": "a@example\r\n"}, "contact"),
        ({"listen": ""}, "challenge listen"),
        ({"listen": "80"}, "challenge listen"),
        ({"listen": "80", "challenge": "tls-alpn-01"}, "challenge listen"),
        ({"challenge": "dns-01"}, "challenge"),
        ({"key_id": "kid"}, "key id"),
        ({"secret": "c2VjcmV0"}, "key id"),
        ({"key_id": "kid\n", "secret": "c2VjcmV0"}, "key id"),
        ({"key_id": "kid", "secret": "not base64!"}, "secret"),
        ({"path": "secret/data/x"}, "path"),
    ],
)
def test_what_cannot_be_meant_of_acme(options: Any, field: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        check_origin(acme(**options))
    assert raised.value.field == field


@pytest.mark.parametrize(
    "url",
    ["http://ca.example/directory", "https://[/", "https://ca.example:x/", "https://ca.example/?a", "x"],
)
def test_a_directory_that_is_none(url: str) -> None:
    with pytest.raises(InvalidValue):
        check_origin(Origin("acme", url, GOOD))


@pytest.mark.parametrize(
    ("kind", "such_as"),
    [("acme", "https://ca.example/"), ("vault", "https://vault."), ("infisical", "https://app.infisical.")],
)
@pytest.mark.parametrize("url", ["ca.example", "https://[/"])
def test_what_is_said_of_an_address_is_about_the_kind_that_was_meant(
    kind: str, such_as: str, url: str
) -> None:
    with pytest.raises(InvalidValue) as raised:
        check_origin(Origin(kind, url, {}))
    assert raised.value.field == kind
    assert such_as in raised.value.hint
