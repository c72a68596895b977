"""The plan as a whole: what it holds beside rules, and what only all of it together shows."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from marchproxy.model.appliance import ApplianceListener, ListenerKind, Settings
from marchproxy.model.endpoint import parse_endpoint
from marchproxy.model.entities import Interface, Mapping, Service
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.model.snapshot import Snapshot
from marchproxy.policy.compile import compile_plan
from marchproxy.policy.plan import Plan, Severity
from tests.policy.build import (
    INSIDE,
    NOW,
    OUTSIDE,
    cluster,
    listener,
    mapping,
    plan,
    service,
    snapshot,
    texts,
)

WEB = service("web", "10.1.0.1", port=8080)
OFFICE = service("office", "10.0.0.0/16")


def test_sources_hold_the_prefixes_of_services_that_rules_need() -> None:
    made = plan(OFFICE, WEB, service("idle", "10.9.0.1"), mapping("www", "office", "web", "*:80"))
    assert made.sources == {"office": (ip_network("10.0.0.0/16"),)}


def test_external_needs_the_prefixes_of_every_service() -> None:
    made = plan(OFFICE, WEB, mapping("www", "external", "web", "*:80"))
    assert set(made.sources) == {"office", "web"}
    assert made.listeners[0].rules[0].excluded == ("office", "web")


def test_names_are_those_the_plan_needs() -> None:
    made = plan(
        service("clients", "c.example.com"),
        service("web", "w.example.com"),
        service("idle", "i.example.com"),
        mapping("www", "clients", "web", "*:80"),
    )
    assert made.names == {"c.example.com", "w.example.com"}


def test_clusters_that_share_a_listener_are_told_so() -> None:
    made = plan(
        WEB,
        mapping("www", "all", "web", "192.0.2.1:80"),
        cluster(WEB, mapping("www", "all", "web", "192.0.2.1:80"), name="other"),
    )
    assert texts(made.findings) == [
        "warning listener 192.0.2.1:80/tcp: "
        "clusters default, other share it: one's mappings may decide for the other"
    ]


def test_interfaces_are_taken_over_and_missed() -> None:
    entities = cluster(WEB, mapping("www", "all", "web", "192.0.2.1:80"))
    assert compile_plan(Snapshot((entities,), (INSIDE,)), now=NOW).plan.interfaces == (INSIDE,)
    without = compile_plan(Snapshot((entities,)), now=NOW).plan
    assert texts(without.findings) == [
        "warning interfaces: there are listeners, but no interface that traffic could come in by"
    ]


def test_settings_are_taken_over() -> None:
    settings = Settings(audit=True, resolvers=("9.9.9.9",))
    assert compile_plan(Snapshot(settings=settings), now=NOW).plan.settings is settings


def test_routed_traffic_takes_two_interfaces() -> None:
    def told(*entities: Service | Mapping, interfaces: tuple[Interface, ...]) -> list[str]:
        return texts(compile_plan(Snapshot((cluster(*entities),), interfaces), now=NOW).plan.findings)

    allowing = (OFFICE, WEB, mapping("m", "office", "web"))
    missing = [
        "warning interfaces: mappings without listen address allow routed traffic, which needs two interfaces"
    ]
    assert told(*allowing, interfaces=(INSIDE,)) == missing
    assert told(*allowing, interfaces=()) == missing
    assert told(*allowing, interfaces=(INSIDE, OUTSIDE)) == []
    assert told(OFFICE, WEB, mapping("m", "office", "web", action="deny"), interfaces=(INSIDE,)) == []


LOCKED = service("locked", "10.1.0.3", "2001:db8:1::3", "locked.example.com", auth="token", port=443)


def admitted(made: Plan) -> list[str]:
    return [str(item) for item in made.listeners if item.key in made.admitted]


def test_a_listener_that_asks_is_carried_by_no_tier() -> None:
    made = plan(
        WEB, LOCKED, mapping("a", "all", "locked", "192.0.2.1:80"), mapping("b", "all", "web", "192.0.2.1:81")
    )
    assert admitted(made) == ["192.0.2.1:80/tcp"]
    assert [str(item) for item in made.carried] == ["192.0.2.1:81/tcp"]


def test_one_that_asks_nobody_over_udp_is() -> None:
    made = plan(WEB, LOCKED, mapping("a", "all", "locked", "192.0.2.1:80", "tcp,udp"))
    assert [str(item) for item in made.carried] == ["192.0.2.1:80/udp"]
    assert "warning mapping a: wants a credential, which cannot be asked for over udp: denied there" in texts(
        made.findings
    )


def test_what_shares_its_port_is_admitted_with_it() -> None:
    made = plan(
        WEB,
        LOCKED,
        mapping("a", "all", "locked", "192.0.2.1:80"),
        mapping("b", "all", "web", "*:80"),
        mapping("c", "all", "web", "192.0.2.2:80"),
        mapping("d", "all", "web", "192.0.2.2:81"),
    )
    assert admitted(made) == ["0.0.0.0:80/tcp", "192.0.2.1:80/tcp", "192.0.2.2:80/tcp"]


def test_a_mapping_that_looks_at_tls_names_asks_too() -> None:
    named = service("named", "10.1.0.4", "n.example.com")
    made = plan(WEB, named, mapping("a", "all", "named", "192.0.2.1:80", sni=True))
    assert admitted(made) == ["192.0.2.1:80/tcp"]
    nameless = plan(WEB, mapping("a", "all", "web", "192.0.2.1:80", sni=True))
    assert (
        "warning mapping a: looks at the TLS name, and none of its destinations has a host name: denied"
        in texts(nameless.findings)
    )


def test_what_nobody_can_ask_for_is_said_unless_there_is_an_explicit_proxy() -> None:
    wanted = snapshot(LOCKED, mapping("a", "all", "locked"))
    proxy = ApplianceListener("explicit@*:1", ListenerKind.EXPLICIT, parse_endpoint("*:1"))
    said = "warning mapping a: wants a credential, and there is nobody to present it to: denied"
    without = texts(compile_plan(wanted, now=NOW).plan.findings)
    assert said in without
    served = texts(compile_plan(replace(wanted, listeners=(proxy,)), now=NOW).plan.findings)
    assert said not in served


def test_names_are_those_of_every_service_that_has_some() -> None:
    assert dict(plan(WEB, LOCKED).named) == {"locked": ("locked.example.com",)}


def test_a_listener_that_speaks_tls_is_admitted_whether_or_not_it_wants_a_token() -> None:
    secured = mapping("a", "all", "web", "192.0.2.1:443", tls="proxy")
    made = plan(WEB, secured, mapping("b", "all", "web", "192.0.2.1:80"))
    (rule,) = listener(made, "192.0.2.1:443/tcp").rules
    assert (rule.tls, rule.reason) == ("proxy", Reason.FORWARDED)
    assert [str(item) for item in made.carried] == ["192.0.2.1:80/tcp"]
    assert made.certificates == {"proxy"}
    lab = plan(cluster(WEB, secured, name="lab"))
    assert lab.certificates == {"lab/proxy"}


def test_a_mapping_that_denies_speaks_nothing() -> None:
    made = plan(WEB, mapping("a", "all", "web", "192.0.2.1:443", tls="proxy", action="deny"))
    assert made.certificates == frozenset()
    assert not made.admitted


def test_mappings_that_differ_about_tls_at_one_place_are_told_of() -> None:
    office, lab = service("office", "10.5.0.0/16"), service("lab", "10.6.0.0/16")
    secured = mapping("a", "office", "web", "192.0.2.1:443", tls="proxy")
    other = mapping("b", "lab", "web", "192.0.2.1:443")
    found = texts(plan(WEB, office, lab, secured, other).findings)
    assert [text for text in found if "listener 192.0.2.1:443/tcp: its mappings differ about TLS" in text]
    same = replace(other, tls="proxy")
    assert not [text for text in texts(plan(WEB, office, lab, secured, same).findings) if "TLS" in text]


def http3(*more: Mapping, listen: str = "192.0.2.1:443") -> Plan:
    spoken = mapping("h3", "all", "web", listen, "https,quic", tls="proxy", host="h.example")
    return plan(WEB, spoken, *more)


def test_quic_without_tls_is_udp_that_is_kept_by_connection_id() -> None:
    for protocols, quic in (("quic", True), ("udp,quic", True), ("udp", False)):
        [only] = plan(WEB, mapping("q", "all", "web", "192.0.2.1:443", protocols)).listeners
        assert only.transport is Transport.UDP
        assert [rule.quic for rule in only.rules] == [quic]
    assert not any(rule.quic for only in http3().listeners for rule in only.rules)


def test_http3_has_no_rules_of_its_own() -> None:
    made = http3(mapping("other", "all", "web", "192.0.2.1:443", "https", tls="proxy"))
    (only,) = made.listeners
    assert only.transport is Transport.TCP
    assert made.http3 == made.admitted == {only.key}
    assert [rule.http3 for rule in only.rules] == [True, False]


def test_who_denies_opens_nothing() -> None:
    spoken = mapping("h3", "all", "web", "192.0.2.1:443", "https,quic", tls="proxy", action="deny")
    assert not plan(WEB, spoken).http3


def test_without_tls_quic_passes_through_as_it_did() -> None:
    made = plan(WEB, mapping("pass", "all", "web", "192.0.2.1:443", "https,quic"))
    assert {item.transport for item in made.listeners} == set(Transport)
    assert not made.http3


@pytest.mark.parametrize(
    ("listen", "other", "conflict"),
    [
        ("192.0.2.1:443", "192.0.2.1:443", True),
        ("192.0.2.1:443", "*:443", True),
        ("*:443", "192.0.2.1:443", True),
        ("192.0.2.1:443", "192.0.2.2:443", False),
        ("192.0.2.1:443", "192.0.2.1:444", False),
    ],
)
def test_who_wants_its_datagrams_is_told_of(listen: str, other: str, conflict: bool) -> None:
    made = http3(mapping("games", "all", "web", other, "udp"), listen=listen)
    told = [each for each in made.findings if "HTTP/3" in each.message]
    assert bool(told) is conflict
    assert {each.severity for each in told} <= {Severity.ERROR}
