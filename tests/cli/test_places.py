"""Where `doctor --path` leads."""

from ipaddress import ip_address

import pytest

from marchproxy.cli.places import MOST, places
from marchproxy.dataplane.doctor.case import Case
from marchproxy.model.errors import NotFound
from tests.cli.console import Console
from tests.policy.build import service, snapshot

MANY = [f"10.5.0.{number}" for number in range(1, MOST + 4)]
CASE = Case(
    snapshot=snapshot(
        service("web", "10.2.0.2", "10.2.0.0/24", "fd02::2"),
        service("named", "db.example.com"),
        service("net", "10.0.0.0/8"),
        service("many", *MANY),
    ),
    status={"names": {"db.example.com": ["192.0.2.7"]}},
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.9.9.9", ["10.9.9.9"]),
        ("web", ["10.2.0.2", "fd02::2"]),
        ("named", ["192.0.2.7"]),
        ("many", MANY[:MOST]),
    ],
)
def test_addresses(text: str, found: list[str]) -> None:
    assert list(places(CASE, text, "default")) == [ip_address(each) for each in found]


@pytest.mark.parametrize("text", ["net", "nobody", "10.9.9.999"])
def test_nowhere(text: str) -> None:
    with pytest.raises(NotFound):
        places(CASE, text, "default")


def test_without_a_store_an_address_will_do() -> None:
    assert places(Case(), "10.9.9.9", "default") == [ip_address("10.9.9.9")]
    with pytest.raises(NotFound):
        places(Case(), "web", "default")


def test_what_is_not_there_is_3(site: Console) -> None:
    assert site("doctor", "--path", "nobody").code == 3
