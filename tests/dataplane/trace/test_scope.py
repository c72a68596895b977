"""scope: places that are the appliance's. What is told then: tests/namespace/test_tracing.py."""

from ipaddress import ip_address, ip_network

from marchproxy.dataplane.trace.scope import of_appliance
from marchproxy.model.address import HostName
from marchproxy.model.appliance import ApplianceListener, ListenerKind
from marchproxy.model.endpoint import parse_endpoint, parse_endpoints
from marchproxy.model.entities import Interface, Mapping, Role, Service
from marchproxy.model.protocol import Protocol
from marchproxy.model.snapshot import Cluster, Snapshot

SERVICES = (
    Service("lan", (ip_network("10.1.0.0/24"), ip_network("fd01::/64"))),
    Service("named", (HostName("db.example.com"), HostName("gone.example.com"))),
    Service("world", (ip_network("0.0.0.0/0"), ip_network("::/0"))),
)
MAPPINGS = (
    Mapping(
        "dns", ("lan",), ("named",), (Protocol.UDP, Protocol.ICMP), listen=parse_endpoints("0.0.0.0:53-54")
    ),
    Mapping("routed", ("lan",), ("world",), (Protocol.TCP,)),
    Mapping(
        "web", ("lan",), ("named",), (Protocol.HTTPS, Protocol.QUIC), listen=parse_endpoints("[fd01::1]:443")
    ),
)
SNAPSHOT = Snapshot(
    (Cluster("default", SERVICES, MAPPINGS),),
    (Interface("inside0", Role.INSIDE),),
    listeners=(
        ApplianceListener("dns", ListenerKind.DNS, parse_endpoint("10.1.0.1:53")),
        ApplianceListener("explicit", ListenerKind.EXPLICIT, parse_endpoint("*:3128")),
    ),
)


def test_services_but_not_the_whole_internet_listeners_and_open_connections() -> None:
    own = ip_address("10.1.0.1")
    scope = of_appliance(
        SNAPSHOT,
        {"db.example.com": [ip_address("10.2.0.7")]},
        [(ip_address("192.0.2.9"), 8443)],
        [own],
        pins=None,
        daemon=42,
    )
    assert scope.services == {ip_network("10.1.0.0/24"), ip_network("fd01::/64"), ip_network("10.2.0.7/32")}
    assert scope.places == {
        (None, 53, 17),
        (None, 54, 17),
        (ip_address("fd01::1"), 443, 6),
        (ip_address("fd01::1"), 443, 17),
        (own, 53, 17),
        (own, 53, 6),
        (None, 3128, 6),
        (ip_address("192.0.2.9"), 8443, 6),
    }
    assert scope.own == {own}
    assert scope.interfaces == {"inside0"}
    assert scope.daemon == 42


def test_what_the_child_is_told() -> None:
    scope = of_appliance(SNAPSHOT, {}, [], [ip_address("::1")], pins=None, daemon=0)
    document = scope.document()
    assert sorted(document["services"]) == [("10.1.0.0", 24), ("fd01::", 64)]
    assert ("", 3128, 6) in document["places"]
    assert ("fd01::1", 443, 17) in document["places"]
    assert (document["own"], document["interfaces"]) == (["::1"], ["inside0"])
