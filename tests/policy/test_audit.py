"""Audit: what would be refused goes on, at listeners and in transit, and carries its reason."""

from dataclasses import replace

import pytest

from marchproxy.model.appliance import Settings
from marchproxy.model.entities import Balance, Mapping, Service
from marchproxy.model.reason import Reason, Verdict
from marchproxy.model.snapshot import Cluster, Snapshot
from marchproxy.policy.compile import Compiled, compile_plan
from marchproxy.policy.evaluate import evaluate
from marchproxy.policy.plan import ANYONE, LAST_PRIORITY, Plan, Rule, Severity
from tests.policy.build import NOW, cluster, listener, mapping, query, service, snapshot

OFFICE = service("office", "10.0.0.0/16")
LAB = service("lab", "10.0.9.0/24")
WEB = service("web", "10.1.0.1", port=8080)
API = service("api", "10.1.0.2", port=9090)
EVERY = (OFFICE, LAB, WEB, API)
AT = "192.0.2.1:80"
INSIDE, STRANGER, OWN, AWAY = "10.0.0.1", "203.0.113.7", "192.0.2.1", "198.51.100.1"


def audited(held: Snapshot, scope: str) -> Snapshot:
    """The same with audit for its first cluster, or for the appliance."""
    if scope == "appliance":
        return replace(held, settings=Settings(audit=True))
    first, *others = held.clusters
    return replace(held, clusters=(replace(first, audit=True), *others))


def made(*entities: Service | Mapping | Cluster, scope: str = "") -> Plan:
    """The plan, with all services of this module."""
    wanted = snapshot(*EVERY, *entities)
    return compile_plan(audited(wanted, scope) if scope else wanted, now=NOW).plan


def rules(plan: Plan, where: str = AT) -> list[Rule]:
    """The rules at a TCP listener."""
    return list(listener(plan, f"{where}/tcp").rules)


def services(rule: Rule) -> set[str]:
    """Where a rule leads."""
    return {backend.service for backend in rule.pool.backends} if rule.pool else set()


WWW = mapping("www", "office", "web", AT, balance="source")
DENY = mapping("deny", "lab", "web", AT, action="deny", audit=True)


def test_a_deny_leads_where_the_next_rule_that_allows_does() -> None:
    late = mapping("zzz", "office", "api", AT)
    deny, www, _ = rules(made(WWW, DENY, late))
    assert (deny.mapping, deny.reason, deny.audit) == ("deny", Reason.DENY_MAPPING, True)
    assert deny.pool is www.pool
    assert deny.balance is Balance.SOURCE
    assert not www.audit
    answer = evaluate(made(WWW, DENY), query("10.0.9.1", OWN))
    assert (answer.verdict, answer.reason, answer.mapping) == (Verdict.AUDIT, Reason.DENY_MAPPING, "deny")


def test_without_a_later_rule_that_allows_there_is_nowhere_to_go() -> None:
    last = replace(DENY, priority=200)
    *_, deny = rules(made(WWW, last))
    assert (deny.pool, deny.audit) == (None, False)
    assert evaluate(made(WWW, last), query("10.1.0.1", OWN)).verdict is Verdict.DENY


def test_a_restriction_under_audit_lets_through_at_the_listener_and_in_transit() -> None:
    plan = made(WWW, mapping("ban", "lab", "web", action="deny", audit=True))
    assert [(rule.mapping, services(rule)) for rule in rules(plan)] == [("ban", {"web"}), ("www", {"web"})]
    assert [(rule.mapping, rule.audit) for rule in plan.transit] == [("ban", True)]
    assert evaluate(plan, query("10.0.9.1", OWN)).verdict is Verdict.AUDIT
    assert evaluate(plan, query("10.0.9.1", "10.1.0.1", 8080)).verdict is Verdict.AUDIT


def test_a_mapping_that_allows_leads_to_its_own_backends() -> None:
    first, _ = rules(made(mapping("api", "office", "api", AT, audit=True, auth_required=True), WWW))
    assert (services(first), first.audit) == ({"api"}, True)
    refused, _ = rules(made(mapping("api", "office", "api", AT, auth_required=True), WWW))
    assert (services(refused), refused.audit) == (set(), False)


@pytest.mark.parametrize("destinations", ["all", "range", "itself"])
def test_audit_is_never_what_makes_a_plan_impossible(destinations: str) -> None:
    """Without it the mapping refuses, and nobody minds where it would lead."""
    odd = (service("range", "10.7.0.0/24"), service("itself", "192.0.2.1", port=80))
    refusing = mapping("odd", "office", destinations, AT, auth_required=True, priority=1)
    for scope in ("", "cluster", "appliance"):
        plan = made(*odd, refusing, WWW, scope=scope)
        assert not any(finding.severity is Severity.ERROR for finding in plan.findings)
        assert services(rules(plan)[0]) == ({"web"} if scope else set())


@pytest.mark.parametrize("scope", ["cluster", "appliance"])
def test_what_nothing_matches_goes_where_the_last_rule_that_allows_leads(scope: str) -> None:
    late = mapping("zzz", "lab", "api", AT)
    *_, last = rules(made(WWW, late, scope=scope))
    assert (last.mapping, last.reason, last.audit) == ("", Reason.NO_MAPPING, True)
    assert (last.sources, last.excluded, last.priority) == ((ANYONE,), (), LAST_PRIORITY)
    assert services(last) == {"api"}
    answer = evaluate(made(WWW, late, scope=scope), query(STRANGER, OWN))
    assert (answer.verdict, answer.reason, answer.mapping) == (Verdict.AUDIT, Reason.NO_MAPPING, "")


def test_no_rule_is_added_where_nobody_could_reach_it() -> None:
    assert len(rules(made(mapping("www", "all", "web", AT), scope="cluster"))) == 1
    assert len(rules(made(mapping("www", "all", "web", AT, action="deny"), scope="cluster"))) == 1


def test_a_cluster_lets_strangers_through_to_its_own_backends_only() -> None:
    other = cluster(API, mapping("api", "api", "api", AT, priority=500), name="other")
    *_, last = rules(made(WWW, other, scope="cluster"))
    assert services(last) == {"web"}


@pytest.mark.parametrize("scope", ["cluster", "appliance"])
def test_denies_need_not_say_so_themselves(scope: str) -> None:
    plan = made(WWW, replace(DENY, audit=False), mapping("no", "lab", "api", action="deny"), scope=scope)
    assert [rule.audit for rule in rules(plan)] == [True, False, True]
    assert plan.transit[0].audit


def test_transit_that_nothing_matches_is_let_through_where_the_cluster_takes_part() -> None:
    plan = made(mapping("out", "office", "web"), scope="cluster")
    assert [(rule.mapping, rule.sources, rule.destinations) for rule in plan.transit[1:]] == [
        ("", ("api", "lab", "office", "web"), (ANYONE,)),
        ("", (ANYONE,), ("api", "lab", "office", "web")),
    ]
    verdicts = [
        evaluate(plan, query(source, destination, port)).verdict
        for source, destination, port in (
            (INSIDE, "10.1.0.1", 8080),
            (INSIDE, AWAY, 80),
            (STRANGER, "10.1.0.1", 8080),
            (STRANGER, AWAY, 80),
        )
    ]
    assert verdicts == [Verdict.ALLOW, Verdict.AUDIT, Verdict.AUDIT, Verdict.DENY]


def test_the_appliance_lets_everything_through() -> None:
    (rule,) = made(scope="appliance").transit
    assert (rule.sources, rule.destinations, rule.priority) == ((ANYONE,), (ANYONE,), LAST_PRIORITY)
    assert [match.protocol for match in rule.matches] == [1, 6, 17]
    assert evaluate(made(scope="appliance"), query(STRANGER, AWAY)).verdict is Verdict.AUDIT


def test_prefixes_of_an_audited_cluster_are_in_the_plan() -> None:
    assert set(made(scope="cluster").sources) == {"api", "lab", "office", "web"}
    assert set(made(scope="appliance").sources) == set()


def recompiled(before: Compiled, wanted: Snapshot) -> Compiled:
    """The successor, which is the same as from scratch."""
    after = compile_plan(wanted, now=NOW, previous=before)
    assert after == compile_plan(wanted, now=NOW)
    return after


@pytest.mark.parametrize("scope", ["cluster", "appliance"])
def test_audit_comes_and_goes(scope: str) -> None:
    plain = snapshot(*EVERY, WWW, replace(DENY, audit=False), mapping("out", "office", "web"))
    before = compile_plan(plain, now=NOW)
    during = recompiled(before, audited(plain, scope))
    assert during.plan != before.plan
    after = recompiled(during, plain)
    assert after.plan == before.plan
    assert before.plan.transit[0] is during.plan.transit[0]
    assert before.plan.transit[0] is after.plan.transit[0]


@pytest.mark.parametrize("scope", ["cluster", "appliance"])
def test_under_audit_too_what_did_not_change_is_the_same_object(scope: str) -> None:
    aside = mapping("aside", "office", "api", "192.0.2.2:80")
    wanted = audited(snapshot(*EVERY, WWW, DENY, aside, mapping("out", "office", "web")), scope)
    before = compile_plan(wanted, now=NOW)
    more = audited(snapshot(*EVERY, WWW, DENY, aside, mapping("out", "office", "api")), scope)
    after = recompiled(before, more)
    assert all(map(lambda old, new: old is new, before.plan.listeners, after.plan.listeners))
    kept = {id(rule) for rule in before.plan.transit} & {id(rule) for rule in after.plan.transit}
    assert len(kept) == len(before.plan.transit) - 1
    assert recompiled(after, more).plan.transit is after.plan.transit


def test_whoever_is_let_through_speaks_what_the_listener_speaks() -> None:
    secured = replace(WWW, tls="proxy")
    denied = mapping("no", "lab", "web", AT, action="deny", priority=10)
    for rule in rules(made(secured, denied, scope="cluster")):
        assert rule.tls == "proxy"
