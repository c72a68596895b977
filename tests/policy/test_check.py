"""What `check` adds to the plan's own findings."""

from datetime import datetime
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marchproxy.model.address import IPAddress
from marchproxy.model.entities import Mapping, Service
from marchproxy.model.snapshot import Cluster, Snapshot
from marchproxy.policy.check import check
from marchproxy.policy.compile import compile_plan
from marchproxy.policy.evaluate import Evaluator
from tests.policy import strategies
from tests.policy.build import NOW, cluster, mapping, service, snapshot, texts

ALL = service("everything", "0.0.0.0/0")
OFFICE = service("office", "10.0.0.0/16", "2001:db8:a::/48")
TEN = service("ten", "10.0.0.0/8")
SPREAD = service("spread", "9.9.9.9", "10.0.9.7")
FLOOR = service("floor", "10.0.9.0/24")
CLIENT = service("client", "10.7.0.1")
WEB = service("web", "10.1.0.1")
AT = "192.0.2.1:80"


def told(*entities: Service | Mapping | Cluster) -> list[str]:
    """What check says beyond what the plan says."""
    wanted = snapshot(*entities)
    compiled = compile_plan(wanted, now=NOW)
    findings = check(wanted, compiled)
    assert findings[: len(compiled.plan.findings)] == compiled.plan.findings
    return texts(findings[len(compiled.plan.findings) :])


@pytest.mark.parametrize(
    ("earlier", "later", "shadowed"),
    [
        ("all", "office", True),
        ("all", "external", True),
        ("all", "all", True),
        ("external", "external", True),
        ("external", "office", False),
        ("external", "all", False),
        ("office", "office", True),
        ("client,office", "office", True),
        ("office", "client,office", False),
        ("office", "floor", True),
        ("floor", "office", False),
        ("ten", "office", True),
        ("office", "spread", False),
        ("everything", "client,floor", True),
        ("everything", "all", False),
        ("office", "external,floor", False),
        ("external,office", "external,floor", True),
        ("collection:none", "office", False),
        ("office", "collection:none", False),
    ],
)
def test_a_mapping_is_shadowed_where_earlier_ones_take_all_its_sources(
    earlier: str, later: str, shadowed: bool
) -> None:
    first = mapping("first", earlier, "web", AT, priority=1)
    second = mapping("second", later, "web", AT, priority=2)
    finding = (
        "warning mapping second: never matches at 192.0.2.1:80/tcp: "
        "first comes first and takes all its sources"
    )
    said = told(ALL, TEN, OFFICE, FLOOR, CLIENT, SPREAD, WEB, first, second)
    assert (finding in said) is shadowed
    assert any("never matches" in text for text in said) is shadowed


def test_two_mappings_together_can_shadow_a_third() -> None:
    said = told(
        OFFICE,
        CLIENT,
        WEB,
        mapping("a", "office", "web", AT, priority=1),
        mapping("b", "client", "web", AT, priority=2),
        mapping("c", "client,office", "web", AT, priority=3),
    )
    assert len(said) == 1
    assert said[0].startswith("warning mapping c: never matches")


def test_shadowed_at_several_listeners_is_one_finding() -> None:
    dual = service("dual", "10.1.0.1", "2001:db8:1::1")
    earlier, later = mapping("a", "all", "dual", "*:80", priority=1), mapping("b", "dual", "dual", "*:80")
    assert told(dual, earlier, later) == [
        "warning mapping b: never matches at 0.0.0.0:80/tcp and [::]:80/tcp: "
        "a comes first and takes all its sources"
    ]


def test_shadowed_by_one_mapping_here_and_another_there_is_one_finding() -> None:
    dual = service("dual", "10.1.0.1", "2001:db8:1::1")
    said = told(
        dual,
        mapping("four", "all", "dual", "0.0.0.0:80", priority=1),
        mapping("six", "all", "dual", "[::]:80", priority=1),
        mapping("later", "dual", "dual", "*:80"),
    )
    assert said == [
        "warning mapping later: never matches at 0.0.0.0:80/tcp and [::]:80/tcp: "
        "four and six come first and take all its sources"
    ]


def test_a_restriction_is_shadowed_only_where_it_matches_nowhere() -> None:
    """At one listener an earlier mapping may well be an exception from it."""
    exception = mapping("exception", "office", "web", "192.0.2.1:80", priority=1)
    ban = mapping("ban", "office", "web", action="deny")
    assert told(OFFICE, WEB, exception, ban, mapping("open", "all", "web", "192.0.2.1:81")) == []
    late = mapping("ban", "office", "web", action="deny", priority=200)
    others = (exception, mapping("other", "office", "web", "192.0.2.2:80"))
    assert told(OFFICE, WEB, *others, late) == []
    assert told(OFFICE, WEB, *others, late, mapping("out", "all", "all")) == [
        "warning mapping ban: never matches at 192.0.2.1:80/tcp and 192.0.2.2:80/tcp and in transit: "
        "out, exception and other come first and take all its traffic"
    ]


def test_a_restriction_shadows_what_it_leaves_nothing_of() -> None:
    said = told(OFFICE, WEB, mapping("ban", "all", "web", action="deny"), mapping("www", "office", "web", AT))
    assert said == [
        "warning mapping www: never matches at 192.0.2.1:80/tcp: ban comes first and takes all its sources"
    ]


@settings(max_examples=50)
@given(snapshot=strategies.snapshots())
def test_no_query_is_ever_decided_by_a_shadowed_mapping(snapshot: Snapshot) -> None:
    compiled = compile_plan(snapshot, now=NOW)
    said = texts(check(snapshot, compiled))
    evaluator = Evaluator(compiled.plan)
    for query in strategies.QUERIES:
        answer = evaluator.evaluate(query)
        if answer.listener is not None and answer.rule is not None:
            shadowed = [
                text for text in said if text.startswith(f"warning mapping {answer.mapping}: never matches")
            ]
            assert not any(
                f"{answer.listener}:" in text or f"{answer.listener} and" in text for text in shadowed
            )


@settings(max_examples=50)
@given(
    snapshot=strategies.snapshots(),
    names=strategies.names(),
    now=st.sampled_from(strategies.INSTANTS),
)
def test_what_is_shadowed_in_transit_is_so_whatever_names_come_to_and_mappings_expire(
    snapshot: Snapshot, names: dict[str, tuple[IPAddress, ...]], now: datetime
) -> None:
    said = texts(check(snapshot, compile_plan(snapshot, now=NOW)))
    shadows = [text for text in said if "never matches" in text and "in transit:" in text]
    told_of = {text.split()[2][:-1] for text in shadows}
    evaluator = Evaluator(compile_plan(snapshot, names=names, now=now).plan)
    for query in strategies.QUERIES:
        answer = evaluator.evaluate(query)
        if answer.listener is None:
            assert answer.mapping not in told_of


@pytest.mark.parametrize(
    ("earlier", "later", "shadowed"),
    [
        (("all", "all"), ("office", "web"), True),
        (("office", "web"), ("floor", "web"), True),
        (("office", "web"), ("office", "web,client"), False),
        (("office", "all"), ("office", "external"), True),
        (("external", "external"), ("external", "external"), True),
        (("external", "all"), ("office", "web"), False),
        (("everything", "web"), ("client,floor", "web"), True),
        (("office", "collection:none"), ("office", "web"), False),
    ],
)
def test_a_mapping_is_shadowed_in_transit_where_earlier_ones_take_all_its_traffic(
    earlier: tuple[str, str], later: tuple[str, str], shadowed: bool
) -> None:
    first, second = mapping("first", *earlier, priority=1), mapping("second", *later, priority=2)
    finding = "warning mapping second: never matches in transit: first comes first and takes all its traffic"
    said = told(ALL, TEN, OFFICE, FLOOR, CLIENT, SPREAD, WEB, first, second)
    assert (finding in said) is shadowed
    assert any("never matches" in text for text in said) is shadowed


def test_the_same_in_opposite_words_is_a_contradiction_and_not_also_a_shadow() -> None:
    finding = (
        "warning mapping a: contradicts mapping z, which denies the same at the same priority and comes first"
    )
    for listen in (None, AT):
        pair = mapping("a", "office", "web", listen), mapping("z", "office", "web", listen, action="deny")
        assert told(OFFICE, WEB, *pair) == [finding]
        later = mapping("z", "office", "web", listen, action="deny", priority=101)
        assert not any("contradicts" in text for text in told(OFFICE, WEB, pair[0], later))
    old = mapping("z", "office", "web", action="deny", expires="2025-12-31T23:59:59Z")
    assert not any("contradicts" in text for text in told(OFFICE, WEB, mapping("a", "office", "web"), old))


def test_names_that_resolve_to_nothing_are_told_once_somebody_asked() -> None:
    named = service("named", "a.example.com", "b.example.com", "c.example.com", "*.example.com")
    wanted = snapshot(named, OFFICE, mapping("m", "office", "named"))
    names = {"b.example.com": [ip_address("10.1.0.7")]}
    compiled = compile_plan(wanted, names=names, now=NOW)
    assert texts(check(wanted, compiled)) == []
    assert texts(check(wanted, compiled, names)) == [
        "warning service named: a.example.com and c.example.com resolve to nothing"
    ]


def test_one_of_ten_thousand_mappings_is_found() -> None:
    """Looking at every one beside every other would be a hundred million pairs."""
    clients = [service(f"c{number}", f"10.{number // 250}.{number % 250}.0/24") for number in range(5000)]
    many = [
        mapping(f"m{number}", f"c{number % 5000}", "external", ports=str(number % 60000 + 1))
        for number in range(10000)
    ]
    last = mapping("last", "c7", "external", ports="8", priority=500)
    said = told(*clients, *many, last)
    assert said == [
        "warning mapping last: never matches in transit: m7 comes first and takes all its traffic"
    ]


def test_an_expired_mapping_is_told() -> None:
    said = told(WEB, mapping("old", "all", "web", AT, expires="2025-12-31T23:59:59Z"))
    assert said == ["warning mapping old: expired at 2025-12-31T23:59:59Z and matches nothing"]


def test_a_deny_for_every_address_does_not_reach_an_address_with_a_listener_of_its_own() -> None:
    said = told(
        WEB,
        CLIENT,
        mapping("block", "client", "web", "0.0.0.0:80", action="deny"),
        mapping("www", "all", "web", AT),
    )
    assert said == [
        "warning listener 192.0.2.1:80/tcp: has its own mappings: "
        "those of 0.0.0.0:80/tcp do not apply to it, such as denying mapping block"
    ]


def test_a_restriction_is_not_said_to_be_kept_from_a_listener() -> None:
    """Where it is missing, there is nothing for it to deny."""
    said = told(
        WEB,
        CLIENT,
        FLOOR,
        mapping("everywhere", "all", "web", "0.0.0.0:80"),
        mapping("here", "floor", "client", AT),
        mapping("ban", "floor", "web", action="deny"),
    )
    assert said == []


def test_clusters_that_listen_for_the_same_in_different_words_are_told() -> None:
    said = told(
        WEB,
        mapping("everywhere", "all", "web", "0.0.0.0:80"),
        cluster(WEB, mapping("here", "all", "web", AT), name="other"),
    )
    assert [text for text in said if "do not apply" in text] == [
        "warning listener 192.0.2.1:80/tcp: has its own mappings: "
        "those of 0.0.0.0:80/tcp do not apply to it, such as mapping everywhere"
    ]


def test_one_cluster_may_prefer_one_address_without_remark() -> None:
    assert told(WEB, mapping("a", "all", "web", "0.0.0.0:80"), mapping("b", "all", "web", AT)) == []


def test_services_that_nothing_names_are_counted() -> None:
    idle = [service(f"idle{number}", "10.9.0.1") for number in range(10)]
    member = service("member", "10.9.0.2", collection="red")
    said = told(WEB, CLIENT, member, *idle, mapping("www", "client,collection:red", "web", AT))
    assert said == [
        "warning services of cluster default: no mapping names "
        "idle0, idle1, idle2, idle3, idle4, idle5, idle6, idle7 and 2 more"
    ]


@pytest.mark.parametrize("source", ["all", "external"])
def test_all_and_external_name_every_service(source: str) -> None:
    assert told(WEB, CLIENT, mapping("www", source, "web", AT)) == []
