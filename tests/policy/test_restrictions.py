"""A deny mapping without listen address: where it stands, and what is said about it."""

from ipaddress import ip_address
from typing import Any

import pytest

from marchproxy.model.entities import Mapping, Service
from marchproxy.model.reason import Reason
from marchproxy.model.snapshot import Cluster
from marchproxy.policy.checks import BackendKey
from marchproxy.policy.evaluate import evaluate
from marchproxy.policy.plan import Plan
from tests.policy.build import cluster, listener, mapping, plan, query, service, texts

OFFICE = service("office", "10.0.0.0/16")
LAB = service("lab", "10.0.9.0/24")
WEB = service("web", "10.1.0.1", "2001:db8:1::1", port=8080, collection="front")
API = service("api", "10.1.0.2", port=9090, collection="front")
TWIN = service("twin", "10.1.0.1", port=8080)
VAULT = service("vault", "10.1.0.5", auth="token")
EVERY = (OFFICE, LAB, WEB, API, TWIN, VAULT)
AT = "192.0.2.1:80"
WWW = mapping("www", "office", "web", AT)
EXCESS = "warning mapping ban: denies its sources all of {}, also what it does not cover"


def ban(destinations: str = "web", **fields: Any) -> Mapping:
    """The lab may not."""
    return mapping("ban", "lab", destinations, **{"action": "deny", **fields})


def made(*entities: Service | Mapping | Cluster) -> Plan:
    """The plan, with all services of this module."""
    return plan(*EVERY, *entities)


def rules(plan: Plan, where: str = AT) -> list[str]:
    """The mappings at a TCP listener in first-match order, without their cluster."""
    return [rule.mapping.split("/")[-1] for rule in listener(plan, f"{where}/tcp").rules]


def test_it_denies_its_sources_where_others_listen() -> None:
    wanted = made(WWW, ban())
    denied = evaluate(wanted, query("10.0.9.1", "192.0.2.1"))
    assert (denied.reason, denied.mapping) == (Reason.DENY_MAPPING, "ban")
    assert evaluate(wanted, query("10.0.0.1", "192.0.2.1")).reason is Reason.FORWARDED
    assert wanted.findings == ()


@pytest.mark.parametrize(
    ("priority", "order"),
    [(99, ["ban", "www"]), (100, ["ban", "www"]), (101, ["www", "ban"])],
    ids=["before", "deny before allow", "behind"],
)
def test_its_priority_is_its_own(priority: int, order: list[str]) -> None:
    assert rules(made(WWW, ban(priority=priority))) == order


def test_it_stands_among_what_listens_there_by_priority_and_name() -> None:
    others = (
        mapping("first", "office", "api", AT, priority=1),
        mapping("aside", "lab", "all", AT, action="deny"),
        mapping("cut", "lab", "all", AT, action="deny"),
        mapping("last", "office", "api", AT, priority=500),
    )
    assert rules(made(WWW, ban(), *others)) == ["first", "aside", "ban", "cut", "www", "last"]


@pytest.mark.parametrize(
    ("destinations", "fields", "meets"),
    [
        ("web", {}, True),
        ("web,vault", {}, True),
        ("all", {}, True),
        ("collection:front", {}, True),
        ("api", {}, False),
        ("twin", {}, False),
        ("external", {}, False),
        ("external,web", {}, True),
        ("collection:none", {}, False),
        ("web", {"protocols": "http"}, True),
        ("web", {"protocols": "tcp,udp"}, True),
        ("web", {"protocols": "udp"}, False),
        ("web", {"protocols": "quic"}, False),
        ("web", {"protocols": "icmp"}, False),
        ("web", {"ports": "8080"}, True),
        ("web", {"ports": "22,8000-8100"}, True),
        ("web", {"ports": "80"}, False),
        ("all", {"ports": "80"}, False),
        ("all", {"ports": "8080"}, True),
        ("web", {"expires": "2025-12-31T23:59:59Z"}, False),
        ("web", {"action": "allow"}, False),
    ],
)
def test_it_meets_listeners_that_forward_to_what_it_covers(
    destinations: str, fields: dict[str, Any], meets: bool
) -> None:
    """By service, though another has the same address; ports are the backends' and not the listener's."""
    assert rules(made(WWW, ban(destinations, **fields))) == (["ban", "www"] if meets else ["www"])


def test_it_meets_each_transport_for_itself() -> None:
    wanted = made(mapping("www", "office", "web", AT, "tcp,udp"), ban(protocols="udp"))
    found = {str(item): len(item.rules) for item in wanted.listeners}
    assert found == {"192.0.2.1:80/tcp": 1, "192.0.2.1:80/udp": 2}


def test_it_meets_the_families_that_have_the_backends() -> None:
    wanted = made(mapping("www", "office", "web,api", "*:80"), ban("api"))
    assert rules(wanted, "0.0.0.0:80") == ["ban", "www"]
    assert rules(wanted, "[::]:80") == ["www"]


@pytest.mark.parametrize(
    "refusing",
    [
        mapping("www", "office", "web", AT, action="deny"),
        mapping("www", "office", "web", AT, ports="22,23"),
    ],
    ids=["denies", "has no backend"],
)
def test_it_has_nothing_to_restrict_where_nothing_is_forwarded(refusing: Mapping) -> None:
    assert rules(made(refusing, ban())) == ["www"]


def test_it_restricts_what_a_credential_opens() -> None:
    assert rules(made(mapping("www", "office", "web,vault", AT), ban())) == ["ban", "www"]


def test_without_a_listener_there_is_nothing_to_restrict() -> None:
    wanted = made(ban())
    assert wanted.listeners == ()
    assert [rule.mapping for rule in wanted.transit] == ["ban"]
    assert wanted.findings == ()


def test_external_beside_services_is_two_rules() -> None:
    wanted = made(WWW, mapping("ban", "external,lab", "web", action="deny"))
    assert rules(wanted) == ["ban", "ban", "www"]
    reasons = [evaluate(wanted, query(source, "192.0.2.1")).reason for source in ("203.0.113.7", "10.0.9.1")]
    assert reasons == [Reason.DENY_MAPPING, Reason.DENY_MAPPING]


def test_a_condition_that_cannot_be_tested_denies_all_and_says_so() -> None:
    wanted = made(WWW, ban(protocols="http", path_prefix="/x"))
    assert evaluate(wanted, query("10.0.9.1", "192.0.2.1")).reason is Reason.NOT_CARRIED
    assert texts(wanted.findings) == [
        "warning mapping ban: looks at the path prefix, which traffic that passes does not show: denied"
    ]


def test_it_is_for_its_own_cluster_only() -> None:
    other = cluster(OFFICE, WEB, mapping("www", "office", "web", "192.0.2.2:80"), name="other")
    wanted = made(WWW, mapping("ban", "office", "all", action="deny"), other)
    assert rules(wanted, AT) == ["ban", "www"]
    assert rules(wanted, "192.0.2.2:80") == ["www"]


def test_clusters_say_the_same_about_services_of_their_own() -> None:
    other = cluster(LAB, WEB, mapping("www", "lab", "web", "192.0.2.2:80"), ban("web"), name="other")
    wanted = made(WWW, ban("web"), other)
    assert (rules(wanted, AT), rules(wanted, "192.0.2.2:80")) == (["ban", "www"], ["ban", "www"])
    assert [item.rules[0].mapping for item in wanted.listeners] == ["ban", "other/ban"]


def test_what_it_denies_beyond_its_destinations_is_told() -> None:
    wanted = made(mapping("www", "office", "web,api", AT), ban("web"))
    assert rules(wanted) == ["ban", "www"]
    assert texts(wanted.findings) == [EXCESS.format("www at 192.0.2.1:80/tcp")]
    assert made(mapping("www", "office", "web,api", AT), ban("web,api")).findings == ()


def test_what_it_denies_beyond_its_ports_is_told() -> None:
    wanted = made(mapping("www", "office", "web,api", AT), ban("all", ports="9090"))
    assert texts(wanted.findings) == [EXCESS.format("www at 192.0.2.1:80/tcp")]


def test_what_it_denies_of_other_mappings_at_the_listener_is_told() -> None:
    wanted = made(WWW, mapping("zone", "office", "api", AT, priority=200), ban("web"))
    assert rules(wanted) == ["ban", "www", "zone"]
    assert texts(wanted.findings) == [EXCESS.format("zone at 192.0.2.1:80/tcp")]


def test_nothing_is_told_of_mappings_that_come_before_it() -> None:
    mixed = mapping("www", "office", "web,api", AT)
    assert made(mixed, ban("web", priority=101)).findings == ()
    early = mapping("early", "office", "api", AT, priority=1)
    assert made(WWW, early, ban("web")).findings == ()


def test_one_finding_names_a_few_places() -> None:
    mixed = [mapping(f"m{number}", "office", "web,api", f"192.0.2.1:{number}") for number in range(1, 5)]
    first = "m1 at 192.0.2.1:1/tcp, m2 at 192.0.2.1:2/tcp, m3 at 192.0.2.1:3/tcp"
    assert texts(made(*mixed[:3], ban("web")).findings) == [EXCESS.format(first)]
    assert texts(made(*mixed, ban("web")).findings) == [EXCESS.format(f"{first} and elsewhere")]


def test_restrictions_about_the_same_each_have_their_finding() -> None:
    again = mapping("more", "office", "web", action="deny", priority=101)
    wanted = made(mapping("www", "office", "web,api", AT), ban("web"), again)
    assert rules(wanted) == ["ban", "www", "more"]
    assert texts(wanted.findings) == [EXCESS.format("www at 192.0.2.1:80/tcp")]


@pytest.mark.parametrize("gone", [["10.1.0.1"], ["10.1.0.1", "10.1.0.2"]], ids=["covered", "all"])
def test_what_it_denies_does_not_depend_on_health(gone: list[str]) -> None:
    """A backend that goes down must not give back what is denied."""
    web, api = (
        service(name, address, port=80, health="tcp")
        for name, address in (("web", "10.1.0.1"), ("api", "10.1.0.2"))
    )
    down = frozenset(
        BackendKey(name, ip_address(address), 80)
        for name, address in (("web", "10.1.0.1"), ("api", "10.1.0.2"))
        if address in gone
    )
    healthy, sick = (
        plan(OFFICE, LAB, web, api, mapping("www", "office", "web,api", AT), ban(), down=found)
        for found in (frozenset(), down)
    )
    assert rules(sick) == rules(healthy) == ["ban", "www"]
    assert evaluate(sick, query("10.0.9.1", "192.0.2.1")).reason is Reason.DENY_MAPPING
