"""Which service an address speaks for, where several could be meant."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane import naming
from marchproxy.dataplane.naming import AllServices, ServiceNames
from marchproxy.model.documents import read_service
from marchproxy.model.snapshot import Cluster, Snapshot
from marchproxy.policy.plan import ANYONE
from tests.dataplane.facts import decision, flow
from tests.dataplane.plans import backend, listener, plan, rule
from tests.policy.build import mapping, service
from tests.policy.build import plan as compiled

NAMES = ServiceNames(
    plan(
        listener(1, rule(backend(8443, "10.9.0.1"), sources=("shop/till",), mapping="shop/pay")),
        listener(2, rule(backend(8443, "10.9.0.1"), sources=(ANYONE,), mapping="open")),
        sources={
            "net": "10.0.0.0/8",
            "office": "10.1.0.0/16",
            "shop/till": "10.0.0.0/8",
            "shop/floor": "10.1.2.0/24",
        },
    )
)


def test_the_service_that_the_mapping_names_goes_first() -> None:
    assert NAMES.source(ip_address("10.1.2.3"), "shop/pay") == "shop/till"


def test_then_a_service_of_the_mappings_cluster_by_the_alphabet() -> None:
    assert NAMES.source(ip_address("10.1.2.3"), "open") == "net"
    assert NAMES.source(ip_address("10.1.2.3"), "shop/other") == "shop/floor"


def test_without_a_mapping_any_service_will_do() -> None:
    assert NAMES.source(ip_address("10.1.2.3"), "") == "net"


def test_a_stranger_has_no_service() -> None:
    assert NAMES.source(ip_address("192.0.2.1"), "shop/pay") == ""
    between_strangers = decision("192.0.2.1", destination=ip_address("192.0.2.2"))
    assert NAMES.complete(between_strangers) == between_strangers


def test_a_flow_is_completed_at_both_ends() -> None:
    made = NAMES.complete_flow(flow(decision("10.3.0.1", mapping="shop/pay")))
    assert (made.decision.source_service, made.decision.destination_service) == ("shop/till", "web")


def test_a_routed_flow_is_to_the_service_that_its_mapping_names() -> None:
    """Another service has a backend there, behind a listener."""
    made = compiled(
        service("lan", "10.1.0.0/24"),
        service("farm", "10.2.0.2", port=80),
        service("web", "10.2.0.2"),
        mapping("balanced", "lan", "farm", listen="10.1.0.1:8080"),
        mapping("routed", "lan", "web", ports="80"),
    )
    names = ServiceNames(made)
    client, server = ip_address("10.1.0.7"), ip_address("10.2.0.2")

    def reached(asked: str, by: str) -> tuple[str, str]:
        went = decision(str(client), destination=ip_address(asked), mapping=by)
        completed = names.complete_flow(replace(flow(went), backend=server, backend_port=80)).decision
        return completed.source_service, completed.destination_service

    assert reached("10.2.0.2", "routed") == ("lan", "web")
    assert reached("10.1.0.1", "balanced") == ("lan", "farm")


def test_a_refusal_in_transit_is_named_at_both_ends() -> None:
    refused = decision("10.3.0.1", destination=ip_address("10.1.2.9"), mapping="")
    made = NAMES.complete(refused)
    assert (made.source_service, made.destination_service) == ("net", "net")
    elsewhere = NAMES.complete(decision("10.3.0.1", destination=ip_address("192.0.2.9"), mapping=""))
    assert elsewhere.destination_service == ""


def test_what_a_tier_has_filled_in_stays() -> None:
    known = decision("10.3.0.1", source_service="a/b", destination_service="c/d")
    given = flow(known)
    assert NAMES.complete_flow(given) is given


def test_what_is_remembered_of_one_flow_is_not_said_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "_REMEMBERED", 3)
    known = ServiceNames(NAMES._plan)
    made = [
        replace(
            flow(decision(source=source, mapping=mapping)), backend=ip_address(address), backend_port=port
        )
        for source in ("10.1.2.3", "10.2.0.1", "192.0.2.1")
        for mapping in ("shop/pay", "open", "shop/other")
        for address, port in (("10.9.0.1", 8443), ("10.9.0.1", 1), ("10.9.0.2", 8443))
    ]
    for each in made * 2:
        expected = NAMES.complete(each.decision, NAMES.destination(each.backend, each.backend_port))
        assert known.complete_flow(each).decision == expected
    assert len(known._known_sides) <= 3


def test_an_unknown_backend_has_no_service() -> None:
    assert NAMES.destination(ip_address("10.9.0.1"), 1) == ""


def test_every_rule_of_a_mapping_counts() -> None:
    """One with several destination ports has several rules."""
    hosts = (service("web", "10.1.0.1", port=80), service("xmpp", "10.1.0.2", port=5222))
    around = service("any", "10.0.0.0/8")
    made = compiled(around, *hosts, mapping("out", "any", "web,xmpp"), mapping("rest", "any", "any"))
    asked = [ServiceNames(made).asked(ip_address(f"10.1.0.{last}"), "out") for last in (1, 2, 3)]
    assert asked == ["web", "xmpp", "any"]


def test_services_that_no_rule_names_are_known_too() -> None:
    held = Snapshot(
        (
            Cluster(
                "default", (read_service({"name": "lan", "addresses": ["10.1.0.0/24", "db.example.com"]}),)
            ),
            Cluster("lab", (read_service({"name": "bench", "addresses": ["10.2.0.1"]}),)),
        )
    )
    snapshots = [held]
    services = AllServices(lambda: snapshots[-1])
    assert services.name(ip_address("10.1.0.7")) == "lan"
    assert services.name(ip_address("10.2.0.1")) == "lab/bench"
    assert services.name(ip_address("10.9.0.1")) == ""
    snapshots.append(Snapshot())
    assert services.name(ip_address("10.1.0.7")) == ""
