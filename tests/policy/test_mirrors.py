from typing import Any

from marchproxy.model.protocol import Transport
from marchproxy.policy.compile import compile_plan
from marchproxy.policy.evaluate import Evaluator
from marchproxy.policy.mirrors import withheld
from marchproxy.policy.plan import Mirror, Plan, Rule
from marchproxy.policy.why import why
from tests.policy import build
from tests.policy.build import mapping, service

LAN = service("lan", "10.1.0.0/24")
WEB = service("web", "10.2.0.1", port=8080)
CANARY = service("canary", "10.3.0.1", "10.3.0.2", port=8081)
AT = "192.0.2.1:80"


def www(mirror: str = "canary", listen: str = AT, **fields: Any) -> Any:
    return mapping("www", "lan", "web", listen, "http", mirror=mirror, **fields)


def rule_of(plan: Plan, at: str = f"{AT}/tcp") -> Rule:
    [rule] = [rule for rule in build.listener(plan, at).rules if rule.mapping == "www"]
    return rule


def mirror_of(plan: Plan, at: str = f"{AT}/tcp") -> Mirror:
    found = rule_of(plan, at).handling.mirror
    assert found is not None
    return found


def sentences(plan: Plan, source: str = "10.1.0.7") -> str:
    return "\n".join(why(Evaluator(plan), build.query(source, "192.0.2.1")))


def test_a_mapping_that_copies_has_its_requests_read() -> None:
    plan = build.plan(LAN, WEB, CANARY, www("canary=25"))
    mirror = mirror_of(plan)
    assert [str(each.address) for each in mirror.pool.backends] == ["10.3.0.1", "10.3.0.2"]
    assert mirror.percent == 25
    assert build.listener(plan, f"{AT}/tcp").key in plan.admitted
    assert rule_of(plan).reads_http
    assert not plan.findings


def test_what_it_does_is_explained() -> None:
    said = sentences(build.plan(LAN, WEB, CANARY, www("canary=25")))
    assert "25 of 100 requests is copied to 10.3.0.1:8081 (canary)" in said
    assert "thrown away" in said


def test_requests_may_change_the_family_as_copies() -> None:
    web = service("web", "2001:db8:2::1", "10.2.0.1", port=8080)
    plan = build.plan(LAN, web, CANARY, www(listen="*:80"))
    for at in ("0.0.0.0:80/tcp", "[::]:80/tcp"):
        assert {each.address.version for each in mirror_of(plan, at).pool.backends} == {4}


def test_backends_of_copies_are_checked_and_left_out() -> None:
    canary = service("canary", "10.3.0.1", "10.3.0.2", port=8081, health="tcp")
    plan = build.plan(LAN, WEB, canary, www())
    assert {each.backend.service for each in plan.watched} == {"canary"}
    down = frozenset([plan.watched[0].backend])
    after = build.plan(LAN, WEB, canary, www(), down=down)
    assert len(mirror_of(after).pool.taking) == 1
    every = build.plan(LAN, WEB, canary, www(), down=frozenset(each.backend for each in plan.watched))
    assert "no backend for copies that is up" in sentences(every)


def test_a_change_of_the_service_alone_is_carried_out() -> None:
    first = build.compiled(LAN, WEB, CANARY, www())
    moved = service("canary", "10.3.0.9", port=8081)
    after = compile_plan(build.snapshot(LAN, WEB, moved, www()), now=build.NOW, previous=first)
    assert [str(each.address) for each in mirror_of(after.plan).pool.backends] == ["10.3.0.9"]


def test_a_name_without_addresses_changes_nothing_about_how_the_listener_is_carried() -> None:
    canary = service("canary", "canary.example", port=8081)
    plan = build.plan(LAN, WEB, canary, www())
    assert "canary.example" in plan.names
    assert rule_of(plan).reads_http
    assert not mirror_of(plan).pool.backends


def test_what_gets_no_copies_is_found() -> None:
    for canary, said in (
        (service("canary", "10.3.0.1", port=1, auth="token"), "which wants a credential"),
        (service("canary", "10.3.0.0/24", port=1), "which has no single address"),
    ):
        [text] = build.texts(build.plan(LAN, WEB, canary, www()).findings)
        assert said in text
    [text] = build.texts(build.plan(LAN, WEB, www("nobody")).findings)
    assert "names service nobody, which does not exist" in text
    ranged = build.plan(LAN, WEB, service("canary", "10.3.0.1"), www(listen="192.0.2.1:80-81"))
    assert "which has no port" in build.texts(ranged.findings)[0]


def test_copies_do_not_come_back_to_the_listener() -> None:
    itself = service("canary", "192.0.2.1", port=80)
    [text] = build.texts(build.plan(LAN, WEB, itself, www()).findings)
    assert text.startswith("error")
    assert "back to itself" in text


def test_a_mapping_that_denies_keeps_copies_from_a_service_and_nothing_else() -> None:
    ban = mapping("ban", "lan", "canary", priority=50, action="deny")
    late = mapping("ban", "lan", "canary", priority=200, action="deny")
    elsewhere = mapping("ban", "lan", "canary", ports="99", priority=50, action="deny")
    for denies, kept in ((ban, True), (late, False), (elsewhere, False)):
        plan = build.plan(LAN, WEB, CANARY, www(), denies)
        evaluator = Evaluator(plan)
        query = build.query("10.1.0.7", "192.0.2.1", 80, Transport.TCP)
        answer = evaluator.evaluate(query)
        assert answer.verdict.lets_through
        assert answer.mapping == "www"
        services = evaluator.sources.services(query.source)
        for backend in mirror_of(plan).pool.backends:
            assert withheld(evaluator, services, backend, rule_of(plan)) is kept
        assert ("may get no copies from this source" in sentences(plan)) is kept
