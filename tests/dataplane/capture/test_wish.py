"""wish: parameters of a request, and what services stand for."""

from ipaddress import ip_network

import pytest

from marchproxy.dataplane.capture.wish import Wish, named, read_wish, service_prefixes
from marchproxy.model.errors import InvalidValue, NotFound
from marchproxy.model.reason import Reason
from tests.policy.build import mapping, plan, service


def test_nothing_is_everything_within_bounds() -> None:
    assert read_wish({}) == Wish()
    assert (Wish().duration, Wish().rate, Wish().size) == (60, 1000, 64_000_000)


def test_everything() -> None:
    query = {
        "source": "10.0.0.0/8",
        "destination": "fd00::1",
        "port": "443",
        "protocol": "ICMP",
        "mapping": "shop",
        "service": "web",
        "reason": "no_mapping",
        "denied": "1",
        "rate": "5",
        "snap": "64",
        "duration": "7",
        "size": "1000",
        "packets": "9",
    }
    assert read_wish(query) == Wish(
        source=ip_network("10.0.0.0/8"),
        destination=ip_network("fd00::1"),
        port=443,
        protocol="icmp",
        mapping="shop",
        service="web",
        reason=Reason.NO_MAPPING,
        denied=True,
        rate=5,
        snap=64,
        duration=7,
        size=1000,
        packets=9,
    )


@pytest.mark.parametrize("protocol", ["http", "https", "grpc", "tcp"])
def test_what_runs_over_tcp_is_tcp(protocol: str) -> None:
    assert read_wish({"protocol": protocol}).protocol == "tcp"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", "10.0.0.1/8"),
        ("port", "0"),
        ("protocol", "sctp"),
        ("reason", "BORED"),
        ("denied", "yes"),
        ("rate", "0"),
        ("rate", "10001"),
        ("snap", "63"),
        ("duration", "86401"),
        ("size", "-1"),
        ("packets", "٣"),
        ("colour", "red"),
    ],
)
def test_what_cannot_be_meant(name: str, value: str) -> None:
    with pytest.raises(InvalidValue):
        read_wish({name: value})


def test_names_with_and_without_their_cluster() -> None:
    assert named(["web", "lab/web", "lab/db"], "web") == ["web", "lab/web"]
    assert named(["web", "lab/web", "lab/db"], "lab/web") == ["lab/web"]


def test_service_is_its_prefixes_and_backends() -> None:
    made = plan(
        service("clients", "10.1.0.0/16"),
        service("web", "10.2.0.10", "10.2.0.11", port=80),
        mapping("m", "clients", "web", "*:80"),
    )
    assert service_prefixes(made, "clients") == (ip_network("10.1.0.0/16"),)
    assert set(service_prefixes(made, "web")) == {ip_network("10.2.0.10"), ip_network("10.2.0.11")}
    with pytest.raises(NotFound):
        service_prefixes(made, "nobody")
