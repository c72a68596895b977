"""tracedservices: what addresses are called, what is summed up, and what is looked at."""

from ipaddress import ip_address, ip_network

import pytest

from marchproxy.cli.tracedservices import TracedServices
from marchproxy.dataplane.trace.scope import Scope
from marchproxy.model.errors import NotFound
from tests.cli.console import Console

SLOW = {"kind": "latency", "backend": "10.2.0.10", "port": 8080, "what": "connect"}


def test_backends_of_a_service_are_summed_up(site: Console) -> None:
    services = TracedServices(site.environment())
    found = [
        SLOW | {"count": 3, "total_ns": 3_000_000, "slots": {"1": 1, "11": 2}},
        SLOW | {"backend": "10.2.0.11", "count": 1, "total_ns": 1_000_000, "slots": {"11": 1}},
        SLOW | {"backend": "192.0.2.1", "what": "unanswered", "count": 2, "total_ns": 0, "slots": {}},
    ]
    assert services.latencies(found) == [
        {"service": "192.0.2.1", "what": "unanswered", "count": 2, "mean_us": None, "histogram": []},
        {
            "service": "web",
            "what": "connect",
            "count": 4,
            "mean_us": 1000.0,
            "histogram": [
                {"from_us": 0, "to_us": 1, "count": 1},
                {"from_us": 1024, "to_us": 2047, "count": 3},
            ],
        },
    ]
    assert [row["service"] for row in wanting(site, "web").latencies(found)] == ["web"]
    assert wanting(site, "clients").latencies(found) == []


def test_both_ends_have_their_service(site: Console) -> None:
    services = TracedServices(site.environment())
    event = {
        "source": "10.1.2.3",
        "source_port": 4,
        "destination": "10.2.0.10",
        "destination_port": 80,
        "protocol": 17,
    }
    row = services.complete(event)
    assert (row["source_service"], row["destination_service"], row["protocol"]) == ("clients", "web", "udp")
    assert services.is_meant(row)
    assert wanting(site, "web").is_meant(row)
    assert wanting(site, "clients").is_meant(row)
    assert not wanting(site, "clients").is_meant(row | {"source": "192.0.2.1"})


def test_without_addresses_there_is_the_kind_of_the_packet(site: Console) -> None:
    services = TracedServices(site.environment())
    unknown = dict.fromkeys(("source", "source_port", "destination", "destination_port", "protocol"))
    row = services.complete(unknown | {"ethertype": 0x0806})
    assert row == unknown | {"source_service": "", "destination_service": "", "protocol": "arp"}
    assert services.complete(unknown | {"ethertype": 0x88CC})["protocol"] == "0x88cc"
    assert services.is_meant(row)
    assert not wanting(site, "web").is_meant(row)


def test_one_service_is_looked_at_alone(site: Console) -> None:
    scope = wanting(site, "clients").scope([("192.0.2.1", 80)])
    assert scope == Scope(services=frozenset({ip_network("10.1.0.0/16")}))
    with pytest.raises(NotFound):
        wanting(site, "nobody")


def test_all_of_the_appliance_is_looked_at(site: Console) -> None:
    site.ok("listener", "add", "explicit", "--bind", "*:3128")
    site.ok("interface", "add", "eth7", "--role", "inside")
    scope = TracedServices(site.environment()).scope([("192.0.2.1", 80)])
    assert scope.services > {ip_network("10.1.0.0/16")}
    assert {str(address) for address, port, _ in scope.places if port == 80} >= {"192.0.2.1"}
    assert (None, 3128, 6) in scope.places
    assert ip_address("127.0.0.1") in scope.own
    assert scope.interfaces == {"eth7"}
    assert scope.daemon == 0
    assert scope.document()["interfaces"] == ["eth7"]


def wanting(site: Console, service: str) -> TracedServices:
    return TracedServices(site.environment(), service)
