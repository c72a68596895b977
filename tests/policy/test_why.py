"""The sentences of `explain`."""

from dataclasses import replace
from ipaddress import ip_address

from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.evaluate import Evaluator, Query
from marchproxy.policy.plan import Plan
from marchproxy.policy.why import why
from tests.policy.blocking import blocks
from tests.policy.build import OWN, mapping, plan, query, service

OFFICE = service("office", "10.0.0.0/16", "10.0.9.0/24")
WEB = service("web", "10.1.0.1", "10.1.0.2", port=8080, weight=2)


def told(made: Plan, asked: Query) -> list[str]:
    """The sentences."""
    return list(why(Evaluator(made), asked))


def before_nat(made: Plan, asked: Query) -> list[str]:
    """The sentences before the last, which is about addresses behind the appliance."""
    *others, nat = told(made, asked)
    assert nat.startswith("NAT: ")
    return others


def test_from_the_source_over_what_does_not_match_to_the_backends() -> None:
    made = plan(
        OFFICE,
        WEB,
        mapping("public", "external", "web", "*:80", priority=10),
        mapping("self", "web", "web", "*:80", priority=20, action="deny"),
        mapping("staff", "office", "web", "*:80"),
        mapping("unreached", "all", "web", "*:80", priority=200),
    )
    assert told(made, query("10.0.9.1", "192.0.2.1")) == [
        "source 10.0.9.1 is service office because of 10.0.0.0/16, 10.0.9.0/24",
        "192.0.2.1:80/tcp reaches listener 0.0.0.0:80/tcp, every local address",
        "mapping public (priority 10, allow) does not match: it is for external, and the source is in office",
        "mapping self (priority 20, deny) does not match: it is for web",
        "mapping staff (priority 100, allow) matches and allows it",
        "new flows go to 10.1.0.1:8080 (web, weight 2), 10.1.0.2:8080 (web, weight 2)",
        "NAT: the destination becomes the backend's, the source stays 10.0.9.1",
    ]


def test_no_rule_for_the_source() -> None:
    made = plan(OFFICE, WEB, mapping("staff", "office", "web", "192.0.2.1:80"))
    assert told(made, query("203.0.113.7", "192.0.2.1")) == [
        "source 203.0.113.7 is in no service that a mapping names as a source",
        "192.0.2.1:80/tcp reaches listener 192.0.2.1:80/tcp",
        "mapping staff (priority 100, allow) does not match: it is for office",
        "no mapping matches the source: denied",
    ]


def test_no_listener() -> None:
    made = plan(OFFICE, WEB, mapping("staff", "all", "web", "192.0.2.1:80"))
    host = (
        "no mapping listens on [2001:db8::1]:80/tcp: it is the appliance's own address, so the host answers"
    )
    assert told(made, query("10.0.0.1", "2001:db8::1"))[1:] == [host]


def test_transit_names_both_ends_and_what_decides() -> None:
    made = plan(
        OFFICE,
        WEB,
        mapping("dns", "office", "web", None, "udp", priority=10, ports="53"),
        mapping("old", "office", "web", None, "tcp,icmp", priority=20, ports="21,8000-8100"),
        mapping("out", "office", "web", ports="80"),
    )
    assert told(made, query("10.0.9.1", "10.1.0.2")) == [
        "source 10.0.9.1 is service office because of 10.0.0.0/16, 10.0.9.0/24",
        "destination 10.1.0.2 is service web because of 10.1.0.2/32",
        "10.1.0.2:80/tcp is no listener and not the appliance's own address: it is routed",
        "mapping dns (priority 10, allow) does not match: it is for both ends, but for udp 53",
        "mapping old (priority 20, allow) does not match: "
        "it is for both ends, but for icmp, tcp 21,8000-8100",
        "mapping out (priority 100, allow) matches and allows it",
        "NAT: none, both ends stay as they are",
    ]


def test_transit_that_nothing_allows() -> None:
    made = plan(OFFICE, WEB, mapping("out", "office", "web"))
    assert told(made, query("203.0.113.7", "198.51.100.1")) == [
        "source 203.0.113.7 is in no service that a mapping names as a source",
        "destination 198.51.100.1 is in no service that a mapping names as a destination",
        "198.51.100.1:80/tcp is no listener and not the appliance's own address: it is routed",
        "no mapping matches: denied",
    ]


def test_many_mappings_for_other_ports_are_not_all_listed() -> None:
    many = [mapping(f"m{number:02}", "office", "web", ports=str(1000 + number)) for number in range(20)]
    said = told(plan(OFFICE, WEB, *many), query("10.0.0.1", "10.1.0.1"))
    assert said[-2:] == ["and more such mappings", "no mapping matches: denied"]
    assert len(said) == 3 + 8 + 2


def test_management_ports_come_before_everything() -> None:
    made = plan(OFFICE, WEB, mapping("ssh", "office", "web", "192.0.2.1:22"), management=frozenset({22}))
    cut = replace(made, blocks=blocks("10.0.0.1"))
    asked = Query(ip_address("10.0.0.1"), ip_address("192.0.2.1"), 22, Transport.TCP, OWN)
    said = "192.0.2.1:22/tcp is a management port of the appliance, so the host answers, whatever policy says"
    assert told(cut, asked) == [said]
    assert Evaluator(cut).evaluate(asked).verdict is Verdict.HOST
    for other in (
        replace(asked, transport=Transport.UDP),
        replace(asked, destination=ip_address("10.1.0.1")),
        replace(asked, port=23),
    ):
        assert Evaluator(cut).evaluate(other).reason is Reason.BLOCKED_SOURCE


def test_echo_requests() -> None:
    made = plan(OFFICE, WEB, mapping("ping", "office", "web", None, "icmp"))
    asked = Query(ip_address("10.0.0.1"), ip_address("10.1.0.1"), 0, None, OWN)
    assert told(made, asked)[2:] == [
        "10.1.0.1/icmp is no listener and not the appliance's own address: it is routed",
        "mapping ping (priority 100, allow) matches and allows it",
        "NAT: none, both ends stay as they are",
    ]
    own = replace(asked, destination=ip_address("192.0.2.1"))
    assert told(made, own)[1:] == ["192.0.2.1 is the appliance's own address, so the host answers"]


def test_audit_says_that_it_lets_through() -> None:
    made = plan(OFFICE, WEB, mapping("no", "office", "web", ports="80", action="deny"))
    audited = replace(made, transit=(replace(made.transit[0], audit=True),))
    assert before_nat(audited, query("10.0.0.1", "10.1.0.1"))[-1] == (
        "mapping no (priority 100, deny) matches and denies it: audit reports it and lets it through"
    )
    nobody = replace(made.transit[0], mapping="", audit=True, reason=Reason.NO_MAPPING)
    assert before_nat(replace(made, transit=(nobody,)), query("10.0.0.1", "10.1.0.1"))[-1] == (
        "no mapping matches: audit reports it and lets it through"
    )


def test_refusals_say_why() -> None:
    locked = service("locked", "10.1.0.3", auth="token")
    made = plan(
        WEB,
        locked,
        mapping("a", "all", "web", "*:80", action="deny"),
        mapping("b", "all", "locked", "*:81"),
        mapping("d", "all", "web", "[::]:83"),
    )
    said = [
        next(
            line.partition(" matches and ")[2]
            for line in told(made, query("10.9.9.9", "192.0.2.1", port))
            if " matches and " in line
        )
        for port in (80, 81)
    ]
    assert said == [
        "denies it",
        "allows it with a credential only: denied",
    ]
    (*_, last) = told(made, query("2001:db8:b::1", "2001:db8::1", 83))
    assert last.endswith("allows it, but has no backend of this address family: denied")


def test_credentials_that_open_it_are_named() -> None:
    locked = service("locked", "10.1.0.3", auth="token")
    made = plan(
        locked,
        mapping("there", "all", "locked", "*:81", "tcp,udp"),
        mapping("through", "all", "locked", ports="7"),
    )
    assert told(made, query("10.9.9.9", "192.0.2.1", 81))[-2:] == [
        "a credential of locked opens it, presented in the line before the client's protocol",
        "new flows go to 10.1.0.3:81 (locked)",
    ]
    assert "a credential of" not in "".join(told(made, query("10.9.9.9", "192.0.2.1", 81, Transport.UDP)))
    assert told(made, query("10.9.9.9", "10.1.0.3", 7))[-1] == (
        "a credential of locked opens it, presented to an explicit proxy"
    )


def test_long_lists_are_counted() -> None:
    crowd = [service(f"s{number:02}", "10.0.0.0/8", f"10.1.0.{number}") for number in range(20)]
    names = ",".join(item.name for item in crowd)
    web = service("web", *(f"10.1.1.{number}" for number in range(1, 21)))
    none = [mapping(f"m{number:02}", "web", "web", "*:80", priority=number) for number in range(20)]
    said = before_nat(
        plan(*crowd, web, *none, mapping("last", names, "web", "*:80")), query("10.0.0.1", "192.0.2.1")
    )
    assert "12 more services contain the source" in said
    assert "12 more mappings do not match" in said
    assert said[-1] == "12 more backends"
    assert len(said) == 9 + 1 + 9 + 1 + 2


def test_backends_that_take_no_new_flows_are_told_apart() -> None:
    web = service("web", "10.1.0.1", "10.1.0.2", port=80, drain=["10.1.0.2"])
    spread = mapping("m", "all", "web", "192.0.2.1:80", balance="round-robin")
    *_, going, idle = before_nat(plan(web, spread), query("10.0.9.1", "192.0.2.1"))
    assert going == "new flows go by round-robin to 10.1.0.1:80 (web)"
    assert idle == "down or drained: 10.1.0.2:80 (web)"
    away = service("web", "10.1.0.1", port=80, drain=["10.1.0.1"])
    *_, outcome, idle = told(plan(away, spread), query("10.0.9.1", "192.0.2.1"))
    assert outcome.endswith("allows it, but all its backends are down or drained: denied")
    assert idle == "down or drained: 10.1.0.1:80 (web)"


def test_tls_is_told_of() -> None:
    made = plan(OFFICE, WEB, mapping("staff", "office", "web", "*:443", tls="proxy"))
    assert "TLS is spoken before anything else, with certificate proxy" in told(
        made, query("10.0.9.1", "192.0.2.1", 443)
    )


def test_where_http_is_read_routes_are_told() -> None:
    made = plan(
        WEB,
        OFFICE,
        mapping("cart", "office", "web", "*:80", "http", host="shop.example.com", path_prefix="/cart"),
        mapping("rest", "office", "web", "*:80", "http"),
        mapping("ban", "office", "web", "*:80", "http", path_prefix="/admin", action="deny"),
    )
    asked = replace(query("10.0.1.1", "192.0.2.1"), host="shop.example.com", path="/cart/1")
    said = why(Evaluator(made), asked)
    assert "HTTP is read there, and the request is for host shop.example.com, path /cart/1" in said
    assert [line.partition(" (priority")[0] for line in said if line.startswith("mapping ")] == [
        "mapping ban",
        "mapping rest",
        "mapping cart",
    ]
    assert any(
        "cart" in line and line.endswith("allows it (for host shop.example.com, path /cart)") for line in said
    )
    assert any("rest" in line and "another route is more specific" in line for line in said)
    assert any("ban" in line and "another host or path" in line for line in said)
    nowhere = why(Evaluator(made), replace(asked, host="x", source=query("10.9.9.9", "192.0.2.1").source))
    assert nowhere[-1] == "no mapping is for this source and request: denied"


def test_http3_is_told_of() -> None:
    made = plan(OFFICE, WEB, mapping("www", "office", "web", "*:443", "https,quic", tls="proxy"))
    asked = replace(query("10.0.0.1", "192.0.2.1", 443), host="h.example", path="/")
    said = why(Evaluator(made), asked)
    assert "HTTP/3 is spoken there over UDP, too, and decided by the same mappings" in said
    assert not any("0-RTT" in line for line in said)


def test_early_data_is_told_of() -> None:
    www = mapping("www", "office", "web", "*:443", "https,quic", tls="proxy", early_data=True)
    asked = replace(query("10.0.0.1", "192.0.2.1", 443), host="h.example", path="/")
    said = why(Evaluator(plan(OFFICE, WEB, www)), asked)
    assert "over HTTP/3, GET, HEAD and OPTIONS may come before the handshake is complete (0-RTT)" in said


def masking(made: Plan, *addresses: str) -> Plan:
    """What leaves by the outside interface carries other addresses."""
    inside, outside = made.interfaces
    return replace(made, interfaces=(inside, replace(outside, masquerade=True, nat_addresses=addresses)))


def test_nat_is_told_where_policy_alone_is_asked() -> None:
    made = plan(OFFICE, WEB, mapping("in", "all", "web", "*:80"), mapping("out", "office", "all", ports="81"))
    outside = made.interfaces[1].name
    out, to = query("10.0.0.1", "198.51.100.1", 81), query("10.0.0.1", "192.0.2.1")
    given = masking(made, "192.0.2.9", "2001:db8::9")
    assert told(made, out)[-1] == "NAT: none, both ends stay as they are"
    assert (
        told(given, out)[-1] == f"NAT: the source stays 10.0.0.1 unless it leaves by {outside} (as 192.0.2.9)"
    )
    assert told(masking(made), to)[-1] == (
        "NAT: the destination becomes the backend's, "
        f"the source stays 10.0.0.1 unless it leaves by {outside} (as its own address)"
    )


def test_what_goes_nowhere_has_no_nat_and_what_is_admitted_ends_here() -> None:
    locked = service("locked", "10.1.0.3", auth="token")
    made = plan(
        WEB,
        locked,
        mapping("a", "all", "web", "*:80", send_proxy="v2"),
        mapping("b", "all", "locked", "*:81"),
    )
    assert told(made, query("10.0.0.1", "192.0.2.1"))[-1] == (
        "NAT: none, the connection ends here, and backends see an address of the appliance"
    )
    for port in (81, 99):
        assert "NAT" not in "".join(told(made, query("10.0.0.1", "192.0.2.1", port)))
