"""Where a client reaches what `explain --to` names."""

import socket

import pytest

from marchproxy.cli.reaching import reach
from marchproxy.model.errors import NotFound
from tests.cli.console import Console

SERVICES = (
    ("web", "--address 10.2.0.10 --port 8080 --collection front"),
    ("v6", "--address fd00:2::10 --port 8443"),
    ("net", "--address 10.8.0.0/16"),
    ("idle", "--address 10.9.0.1"),
)
MAPPINGS = (
    ("other", "--from all --to web --protocol tcp --listen 10.1.0.2:81"),
    ("web", "--from all --to collection:front --protocol tcp --listen 10.1.0.1:80"),
    ("star", "--from all --to v6,web --protocol tcp --listen *:8443"),
    ("many", "--from all --to v6 --protocol tcp --listen *:9000-9499"),
    ("dns", "--from all --to web --protocol udp --listen 10.1.0.9:8080"),
)


@pytest.fixture
def town(console: Console) -> Console:
    """Services that are reached in several ways."""
    console.ok("init")
    for name, flags in SERVICES:
        console.ok("service", "add", name, *flags.split())
    for name, flags in MAPPINGS:
        console.ok("mapping", "add", name, *flags.split())
    return console


@pytest.mark.parametrize(
    ("source", "name", "port", "protocol", "expected"),
    [
        pytest.param("10.1.0.5", "web", "80", "tcp", ("10.1.0.1", 80), id="through its collection"),
        pytest.param("10.1.0.5", "web", "81", "http", ("10.1.0.2", 81), id="by name, what runs over TCP"),
        pytest.param("10.1.0.5", "web", "8080", "tcp", ("10.1.0.2", 81), id="asked by the backends' port"),
        pytest.param("10.1.0.5", "web", "8080", "udp", ("10.1.0.9", 8080), id="over UDP"),
        pytest.param("10.1.0.5", "v6", "8443", "tcp", ("0.0.0.0", 8443), id="wildcard, IPv4"),
        pytest.param("fd00::5", "v6", "8443", "tcp", ("::", 8443), id="wildcard, IPv6"),
        pytest.param("10.1.0.5", "v6", "9123", "tcp", ("0.0.0.0", 9123), id="in a range"),
        pytest.param("10.1.0.5", "idle", "22", "tcp", ("10.9.0.1", 22), id="itself where nobody listens"),
        pytest.param("10.1.0.5", "net", "22", "tcp", ("10.8.0.1", 22), id="the first of a range"),
        pytest.param("10.1.0.5", "web", "", "icmp", ("10.2.0.10", 0), id="no listener for ICMP"),
    ],
)
def test_service(
    town: Console, source: str, name: str, port: str, protocol: str, expected: tuple[str, int]
) -> None:
    question = {"source": source, "protocol": protocol} | ({"port": port} if port else {})
    assert reach(town.environment(), question, name, "default") == expected


@pytest.mark.parametrize(("source", "name"), [("fd00::5", "net"), ("fd00::5", "idle")])
def test_a_service_without_an_address_to_ask_for(town: Console, source: str, name: str) -> None:
    question = {"source": source, "port": "22", "protocol": "tcp"}
    with pytest.raises(NotFound, match=name):
        reach(town.environment(), question, name, "default")


def test_a_host_name_is_resolved_in_the_clients_family(
    town: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def resolve(host: str, port: None, family: int, kind: int) -> list[tuple[object, ...]]:
        asked.append((host, family))
        if host == "gone.example":
            raise socket.gaierror(-2, "Name or service not known")
        return [(family, kind, 6, "", ("192.0.2.7", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    question = {"source": "10.1.0.5", "port": "80", "protocol": "tcp"}
    assert reach(town.environment(), question, "Host.Example", "default") == ("192.0.2.7", 80)
    assert asked == [("host.example", socket.AF_INET)]
    with pytest.raises(NotFound, match=r"gone\.example"):
        reach(town.environment(), question, "gone.example", "default")
