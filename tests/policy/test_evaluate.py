"""The evaluator against the oracle, and the sentences of the specification one by one."""

from dataclasses import replace
from datetime import datetime
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.model.address import IPAddress
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason, Verdict
from marchproxy.model.snapshot import Snapshot
from marchproxy.policy.checks import BackendKey
from marchproxy.policy.compile import compile_plan
from marchproxy.policy.evaluate import Evaluator, Query, evaluate
from tests.policy import strategies
from tests.policy.build import OWN, mapping, plan, query, service
from tests.policy.oracle import decide

OFFICE = service("office", "10.0.0.0/16")
LAB = service("lab", "10.0.9.0/24")
WEB = service("web", "10.1.0.1", "10.1.0.2", port=8080)


@given(
    snapshot=strategies.snapshots(),
    names=strategies.names(),
    now=st.sampled_from(strategies.INSTANTS),
    down=strategies.down(),
)
def test_answers_are_those_of_the_oracle(
    snapshot: Snapshot, names: dict[str, tuple[IPAddress, ...]], now: datetime, down: frozenset[BackendKey]
) -> None:
    evaluator = Evaluator(compile_plan(snapshot, names=names, down=down, now=now).plan)
    requests = [replace(asked, path="/x/y/z") for asked in strategies.QUERIES if asked.transport]
    for asked in [*strategies.QUERIES, *requests]:
        answer = evaluator.evaluate(asked)
        backends = (
            frozenset((backend.address, backend.port) for backend in answer.pool.taking)
            if answer.pool
            else frozenset()
        )
        assert (answer.verdict, answer.reason, answer.mapping, backends) == decide(
            snapshot, names, now, asked, down
        )


def test_a_forwarded_flow_names_all_that_decided() -> None:
    asked = plan(OFFICE, LAB, WEB, mapping("www", "office,lab", "web", "192.0.2.1:80"))
    answer = evaluate(asked, query("10.0.9.1", "192.0.2.1"))
    assert (answer.verdict, answer.reason, answer.mapping) == (Verdict.ALLOW, Reason.FORWARDED, "www")
    assert answer.source_services == ("lab", "office")
    assert answer.listener is asked.listeners[0]
    assert answer.rule is asked.listeners[0].rules[0]
    assert answer.pool is asked.listeners[0].rules[0].pool


@pytest.mark.parametrize(
    ("destination", "verdict", "reason"),
    [
        ("192.0.2.2", Verdict.HOST, Reason.PASSED_TO_HOST),
        ("198.51.100.1", Verdict.DENY, Reason.NO_MAPPING),
    ],
)
def test_without_listener_own_addresses_are_the_hosts_and_others_denied(
    destination: str, verdict: Verdict, reason: Reason
) -> None:
    answer = evaluate(plan(WEB, mapping("www", "all", "web", "192.0.2.1:80")), query("10.0.0.1", destination))
    assert (answer.verdict, answer.reason, answer.mapping, answer.listener) == (verdict, reason, "", None)


def test_a_source_that_no_rule_is_for_is_denied_at_the_listener() -> None:
    answer = evaluate(
        plan(OFFICE, WEB, mapping("www", "office", "web", "*:80")), query("203.0.113.7", "192.0.2.1")
    )
    assert (answer.verdict, answer.reason, answer.mapping) == (Verdict.DENY, Reason.NO_MAPPING, "")
    assert answer.listener is not None


def test_requests_are_read_also_where_only_a_mapping_that_joins_wants_that() -> None:
    """In a family that it has no backend of it joins what others open: by its path there, too."""
    asked = plan(
        OFFICE,
        WEB,
        mapping("closed", "office", "web", "*:80", action="deny"),
        mapping("pages", "all", "web", "*:80", "http", path_prefix="/x"),
    )
    wanted = query("2001:db8::9", "2001:db8::1")
    answer = evaluate(asked, wanted)
    assert answer.listener is not None
    assert (answer.reason, answer.mapping) == (Reason.NO_MAPPING, "")
    answer = evaluate(asked, replace(wanted, path="/x/y"))
    assert (answer.reason, answer.mapping) == (Reason.NO_BACKEND, "pages")


def test_the_exact_listener_decides_alone_even_where_the_wildcard_would_allow() -> None:
    asked = plan(
        OFFICE,
        WEB,
        mapping("everywhere", "all", "web", "*:80"),
        mapping("here", "office", "web", "192.0.2.1:80"),
    )
    assert evaluate(asked, query("203.0.113.7", "192.0.2.1")).reason is Reason.NO_MAPPING
    assert evaluate(asked, query("203.0.113.7", "192.0.2.2")).mapping == "everywhere"


def test_the_wildcard_is_for_local_addresses_only() -> None:
    asked = plan(WEB, mapping("everywhere", "all", "web", "*:80"))
    assert evaluate(asked, query("10.0.0.1", "198.51.100.1")).reason is Reason.NO_MAPPING


def test_an_exact_listener_needs_no_local_address() -> None:
    asked = plan(WEB, mapping("virtual", "all", "web", "198.51.100.1:80"))
    assert evaluate(asked, query("10.0.0.1", "198.51.100.1")).verdict is Verdict.ALLOW


def test_deny_comes_before_allow_of_the_same_priority_and_after_a_lower_number() -> None:
    def denied(priority: int) -> bool:
        asked = plan(
            OFFICE,
            WEB,
            mapping("a", "all", "web", "*:80", priority=100),
            mapping("z", "office", "web", "*:80", action="deny", priority=priority),
        )
        return evaluate(asked, query("10.0.0.1", "192.0.2.1")).reason is Reason.DENY_MAPPING

    assert [denied(priority) for priority in (99, 100, 101)] == [True, True, False]


def test_external_is_whoever_is_in_no_service() -> None:
    asked = plan(OFFICE, WEB, mapping("public", "external", "web", "*:80"))
    assert evaluate(asked, query("203.0.113.7", "192.0.2.1")).verdict is Verdict.ALLOW
    assert evaluate(asked, query("10.0.0.1", "192.0.2.1")).reason is Reason.NO_MAPPING


def test_external_beside_a_service_takes_both_even_where_services_overlap() -> None:
    asked = plan(OFFICE, LAB, WEB, mapping("public", "external,lab", "web", "*:80"))
    allowed = [
        evaluate(asked, query(source, "192.0.2.1")).verdict
        for source in ("203.0.113.7", "10.0.9.1", "10.0.0.1")
    ]
    assert allowed == [Verdict.ALLOW, Verdict.ALLOW, Verdict.DENY]


def test_local_may_be_a_function() -> None:
    asked = Query(
        ip_address("10.0.0.1"),
        ip_address("127.0.0.9"),
        80,
        Transport.TCP,
        lambda address: address.is_loopback,
    )
    assert evaluate(plan(WEB, mapping("www", "all", "web", "*:80")), asked).verdict is Verdict.ALLOW


def test_rules_that_exclude_the_same_services_share_one_set() -> None:
    numbers = range(20)
    asked = plan(
        OFFICE, WEB, *(mapping(f"m{number}", "external", "web", f"*:{1000 + number}") for number in numbers)
    )
    evaluator = Evaluator(asked)
    excluded = {id(evaluator.matchers(listener)[0].excluded) for listener in asked.listeners}
    assert len(excluded) == 1
    assert evaluator.sources.services(IPv4Address("10.0.0.1")) == {"office"}


def echo(source: str, destination: str) -> Query:
    """A ping."""
    return Query(ip_address(source), ip_address(destination), 0, None, OWN)


def test_what_passes_through_names_both_ends_and_the_rule() -> None:
    asked = plan(OFFICE, LAB, WEB, mapping("out", "office", "web", ports="80-90"))
    answer = evaluate(asked, query("10.0.9.1", "10.1.0.2"))
    assert (answer.verdict, answer.reason, answer.mapping) == (Verdict.ALLOW, Reason.FORWARDED, "out")
    assert (answer.source_services, answer.destination_services) == (("office",), ("web",))
    assert answer.rule is asked.transit[0]
    assert (answer.listener, answer.pool) == (None, None)
    assert evaluate(asked, query("10.0.9.1", "10.1.0.2", 91)).reason is Reason.NO_MAPPING
    assert evaluate(asked, query("10.0.9.1", "10.1.0.2", 80, Transport.UDP)).reason is Reason.NO_MAPPING
    assert evaluate(asked, query("10.1.0.2", "10.0.9.1")).reason is Reason.NO_MAPPING


def test_a_listener_and_the_appliance_itself_come_before_transit() -> None:
    asked = plan(OFFICE, WEB, mapping("out", "all", "all"), mapping("www", "lab", "web", "198.51.100.1:80"))
    assert evaluate(asked, query("10.0.0.1", "198.51.100.1")).reason is Reason.NO_MAPPING
    assert evaluate(asked, query("10.0.0.1", "198.51.100.1", 81)).mapping == "out"
    assert evaluate(asked, query("10.0.0.1", "192.0.2.1")).verdict is Verdict.HOST
    assert evaluate(asked, echo("10.0.0.1", "192.0.2.1")).verdict is Verdict.HOST


def test_an_echo_request_needs_a_mapping_for_icmp() -> None:
    asked = plan(OFFICE, WEB, mapping("out", "office", "web"), mapping("ping", "office", "web", None, "icmp"))
    assert evaluate(asked, echo("10.0.0.1", "10.1.0.1")).mapping == "ping"
    assert evaluate(asked, echo("10.0.0.1", "10.1.0.9")).reason is Reason.NO_MAPPING
    assert (echo("10.0.0.1", "10.1.0.1").protocol, echo("10.0.0.1", "10.1.0.1").number) == ("icmp", 1)


def test_what_is_refused_for_audit_only_is_an_answer_of_its_own() -> None:
    """Whoever reads the verdict alone must not take it for a refusal, nor for a mapping that allows."""
    asked = plan(OFFICE, WEB, mapping("no", "office", "web", ports="80", action="deny"))
    audited = replace(asked, transit=(replace(asked.transit[0], audit=True),))
    answer = evaluate(audited, query("10.0.0.1", "10.1.0.1"))
    assert (answer.verdict, answer.reason, answer.mapping) == (Verdict.AUDIT, Reason.DENY_MAPPING, "no")
    assert [verdict for verdict in Verdict if verdict.lets_through] == [Verdict.ALLOW, Verdict.AUDIT]


def test_a_running_flow_is_kept_where_only_backends_are_wanting() -> None:
    web = service("web", "10.1.0.1", port=8080, drain=["10.1.0.1"])
    drained = plan(OFFICE, web, mapping("www", "office", "web", "192.0.2.1:80"))
    answer = evaluate(drained, query("10.0.9.1", "192.0.2.1"))
    assert (answer.verdict, answer.reason, answer.keeps) == (Verdict.DENY, Reason.NO_BACKEND, True)
    denied = plan(OFFICE, web, mapping("www", "office", "web", "192.0.2.1:80", action="deny"))
    assert not evaluate(denied, query("10.0.9.1", "192.0.2.1")).keeps


def test_http3_is_decided_where_http1_is() -> None:
    """Whatever listener over TCP has an address, has it over UDP, too, or nobody has."""
    web = service("web", "192.0.2.80", port=443)
    spoken = mapping("h3", "all", "web", "*:443", "https,quic", tls="proxy", host="h.example")
    own = mapping("own", "all", "web", "192.0.2.1:443", "https", tls="proxy")
    made = Evaluator(plan(web, spoken, own))
    over = {each: made.listener(query("198.51.100.1", "192.0.2.2", 443, each)) for each in Transport}
    assert over[Transport.TCP] is over[Transport.UDP] is not None
    # The one of the single address speaks no HTTP/3, and that of all addresses is not for it.
    assert made.listener(query("198.51.100.1", "192.0.2.1", 443, Transport.UDP)) is None
    answer = made.evaluate(
        replace(query("198.51.100.1", "192.0.2.2", 443, Transport.UDP), host="h.example", path="/")
    )
    assert answer.mapping == "h3"
