"""Proposals: small, and no wider than what was seen."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.model.address import HostName
from marchproxy.model.documents import read_mapping, read_service, to_document
from marchproxy.model.ports import format_ports
from marchproxy.model.reason import Reason
from marchproxy.model.snapshot import Cluster
from marchproxy.policy.observed import Observation
from marchproxy.policy.propose import Proposed, propose

EMPTY = Cluster("default")
EXACT = {4: 32, 6: 128}


def seen(source: str, destination: str, port: int = 443, protocol: str = "tcp", **fields: Any) -> Observation:
    return Observation(
        ip_network(source), ip_address(destination), protocol, port, Reason.NO_MAPPING, **fields
    )


def lines(proposed: Proposed) -> list[str]:
    """Each mapping as a sentence."""
    return [
        f"{','.join(mapping.sources)} > {','.join(mapping.destinations)}"
        f" {','.join(mapping.protocols)} {format_ports(mapping.ports)}".rstrip()
        for mapping in proposed.mappings
    ]


def addresses(proposed: Proposed) -> dict[str, list[str]]:
    return {service.name: list(map(str, service.addresses)) for service in proposed.services}


def test_nothing_seen_nothing_proposed() -> None:
    assert propose([], EMPTY) == Proposed((), ())


def test_one_client_of_one_server() -> None:
    proposed = propose([seen("10.1.0.5", "192.0.2.7")], EMPTY)
    assert lines(proposed) == ["host-10.1.0.5 > host-192.0.2.7 tcp 443"]
    assert addresses(proposed) == {"host-10.1.0.5": ["10.1.0.5/32"], "host-192.0.2.7": ["192.0.2.7/32"]}


def test_clients_of_one_network_are_the_network() -> None:
    both = [seen("10.1.0.5", "192.0.2.7"), seen("10.1.0.6", "192.0.2.7"), seen("10.9.0.1", "192.0.2.7")]
    proposed = propose(both, EMPTY)
    assert lines(proposed) == ["host-10.9.0.1,net-10.1.0.0-24 > host-192.0.2.7 tcp 443"]
    wide = propose(both, EMPTY, {4: 8, 6: 64})
    assert lines(wide) == ["net-10.0.0.0-8 > host-192.0.2.7 tcp 443"]
    exact = propose(both, EMPTY, EXACT)
    assert len(exact.mappings) == 1
    assert len(exact.mappings[0].sources) == 3


def test_ports_and_protocols_are_merged() -> None:
    proposed = propose(
        [
            *(seen("10.1.0.5", "192.0.2.7", port) for port in (80, 443, 8000, 8001, 8002)),
            *(seen("10.1.0.5", "192.0.2.53", 53, protocol) for protocol in ("tcp", "udp")),
            seen("10.1.0.5", "192.0.2.53", 0, "icmp"),
        ],
        EMPTY,
    )
    assert sorted(lines(proposed)) == [
        "host-10.1.0.5 > host-192.0.2.53 icmp",
        "host-10.1.0.5 > host-192.0.2.53 tcp,udp 53",
        "host-10.1.0.5 > host-192.0.2.7 tcp 80,443,8000-8002",
    ]


def test_servers_used_alike_are_one_service() -> None:
    proposed = propose([seen("10.1.0.5", f"192.0.2.{number}") for number in (9, 7, 8)], EMPTY)
    assert lines(proposed) == ["host-10.1.0.5 > hosts-192.0.2.7 tcp 443"]
    assert addresses(proposed)["hosts-192.0.2.7"] == ["192.0.2.7/32", "192.0.2.8/32", "192.0.2.9/32"]


def test_servers_used_differently_are_not() -> None:
    proposed = propose([seen("10.1.0.5", "192.0.2.7", 80), seen("10.1.0.5", "192.0.2.8", 25)], EMPTY)
    assert len(proposed.mappings) == 2


def test_a_destination_is_named_after_its_host_name() -> None:
    proposed = propose(
        [seen("10.1.0.5", f"192.0.2.{number}", name="api.example.com") for number in (7, 8)], EMPTY
    )
    (_, service) = proposed.services
    assert (service.name, service.addresses) == ("api.example.com", (HostName("api.example.com"),))


def test_services_that_there_are_keep_their_names() -> None:
    clients = read_service({"name": "clients", "addresses": ["10.1.0.0/16"]})
    web = read_service({"name": "web", "addresses": ["192.0.2.7"]})
    cluster = Cluster("default", (clients, web))
    named = seen("10.1.0.5", "192.0.2.7", source_service="clients", destination_service="web")
    proposed = propose([named], cluster)
    assert lines(proposed) == ["clients > web tcp 443"]
    assert proposed.services == ()
    assert lines(propose([seen("10.9.0.1", "192.0.2.7")], cluster)) == ["host-10.9.0.1 > web tcp 443"]
    elsewhere = seen("10.1.0.5", "192.0.2.7", source_service="lab/clients")
    assert lines(propose([elsewhere], cluster)) == ["host-10.1.0.5 > web tcp 443"]


def test_names_are_never_taken_twice() -> None:
    taken = Cluster(
        "default",
        (read_service({"name": "host-192.0.2.7", "addresses": ["198.51.100.1"]}),),
        (
            read_mapping(
                {
                    "name": "host-10.1.0.5-to-host-192.0.2.7-2-tcp",
                    "sources": ["all"],
                    "destinations": ["all"],
                    "protocols": ["tcp"],
                }
            ),
        ),
    )
    proposed = propose([seen("10.1.0.5", "192.0.2.7")], taken)
    assert [service.name for service in proposed.services] == ["host-10.1.0.5", "host-192.0.2.7-2"]
    assert proposed.mappings[0].name == "host-10.1.0.5-to-host-192.0.2.7-2-tcp-2"


def test_at_a_listener_more_clients_are_let_in() -> None:
    web = read_mapping(
        {
            "name": "web",
            "sources": ["clients"],
            "destinations": ["farm"],
            "protocols": ["tcp"],
            "listen": "10.1.0.1:80",
        }
    )
    cluster = Cluster(
        "default",
        (
            read_service({"name": "clients", "addresses": ["10.1.0.0/24"]}),
            read_service({"name": "farm", "addresses": ["10.2.0.2"]}),
        ),
        (web,),
    )
    (mapping,) = propose([seen("10.3.0.5", "10.1.0.1", 80)], cluster).mappings
    assert mapping.listen == web.listen
    assert (mapping.sources, mapping.destinations) == (("host-10.3.0.5",), ("farm",))


@pytest.mark.parametrize(
    "fields",
    [
        {"destinations": ["farm"], "host": "h.example", "path": "/a", "methods": ["GET"], "headers": ["x-a"]},
        {"destinations": ["farm"], "auth_required": True, "tls": "c", "rewrite_prefix": "/v2"},
        {"redirect": "https://{host}{path}"},
    ],
)
def test_what_the_listener_wants_of_requests_stays(fields: dict[str, object]) -> None:
    document = {
        "name": "web",
        "sources": ["clients"],
        "protocols": ["http"],
        "listen": "10.1.0.1:80",
        **fields,
    }
    clients = read_service({"name": "clients", "addresses": ["10.1.0.0/24"]})
    cluster = Cluster("default", (clients,), (read_mapping(document),))
    (mapping,) = propose([seen("10.3.0.5", "10.1.0.1", 80)], cluster).mappings
    proposed = to_document(mapping)
    assert {name: proposed[name] for name in fields} == fields
    assert mapping.sources == ("host-10.3.0.5",)


def test_long_names_are_cut() -> None:
    name = "a" * 63 + ".example.com"
    (mapping,) = propose([seen("10.1.0.5", "192.0.2.7", name=name)], EMPTY).mappings
    assert len(mapping.name) <= 63
    assert all(len(each) <= 63 for each in mapping.destinations)


SMALL = st.builds(
    seen,
    source=st.sampled_from(["10.1.0.1", "10.1.0.2", "10.2.0.1", "fd00::1", "fd00::2"]),
    destination=st.sampled_from(["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
    port=st.sampled_from([80, 81, 443]),
    protocol=st.sampled_from(["tcp", "udp"]),
)


def allowed(proposed: Proposed) -> Iterator[tuple[str, str, str, int]]:
    """Everything that a proposal without networks and host names lets through."""
    services = {service.name: service.addresses for service in proposed.services}
    for mapping in proposed.mappings:
        sources = [address for name in mapping.sources for address in services[name]]
        destinations = [address for name in mapping.destinations for address in services[name]]
        ports = [port for held in mapping.ports for port in range(held.first, held.last + 1)]
        for source, destination, protocol, port in product(sources, destinations, mapping.protocols, ports):
            yield str(source), str(destination), protocol.value, port


@given(st.lists(SMALL, max_size=20))
def test_exactly_what_was_seen_is_allowed(observations: list[Observation]) -> None:
    proposed = propose(observations, EMPTY, EXACT)
    wanted = {
        (str(item.source), f"{item.destination}/{item.destination.max_prefixlen}", item.protocol, item.port)
        for item in observations
    }
    assert set(allowed(proposed)) == wanted
    for names in ([each.name for each in proposed.services], [each.name for each in proposed.mappings]):
        assert len(names) == len(set(names))


def test_at_a_range_of_ports_too() -> None:
    document = {"name": "m", "sources": ["c"], "destinations": ["web"], "protocols": ["tcp"]}
    ranged = read_mapping(document | {"listen": "10.1.0.1:9000-9499"})
    made = propose([seen("10.9.0.1", "10.1.0.1", 9123)], Cluster("default", (), (ranged,)))
    assert [mapping.listen for mapping in made.mappings] == [ranged.listen]
    made = propose([seen("10.9.0.1", "10.1.0.1", 9500)], Cluster("default", (), (ranged,)))
    assert [mapping.listen for mapping in made.mappings] == [None]
