"""What compiling again does to listeners: it builds those that change, and only those."""

import pytest

from marchproxy.model.entities import Mapping, Service
from marchproxy.policy.compile import Compiled, compile_plan
from marchproxy.policy.plan import Listener, Plan
from tests.policy.build import NOW, listener, mapping, service, snapshot

OFFICE = service("office", "10.0.0.0/16")
LAB = service("lab", "10.0.9.0/24")
WEB = service("web", "10.1.0.1", "2001:db8:1::1", collection="front")
WEB4 = service("web4", "10.1.0.4")
API = service("api", "10.1.0.2")
FIRST, SECOND = "192.0.2.1:80/tcp", "192.0.2.1:81/tcp"
BASE: dict[str, Service | Mapping | None] = {
    "office": OFFICE,
    "lab": LAB,
    "web": WEB,
    "web4": WEB4,
    "api": API,
    "first": mapping("first", "office", "web", "192.0.2.1:80"),
    "second": mapping("second", "office", "api", "192.0.2.1:81"),
    "ban": mapping("ban", "lab", "web", action="deny"),
}


def made(previous: Compiled | None = None, **changed: Service | Mapping | None) -> Compiled:
    """What `BASE` with changes compiles to, which is the same as from scratch."""
    wanted = snapshot(*(part for part in (BASE | changed).values() if part is not None))
    result = compile_plan(wanted, now=NOW, previous=previous)
    assert result == compile_plan(wanted, now=NOW)
    return result


def orders(plan: Plan) -> dict[str, list[str]]:
    """The mappings of each listener, without their cluster."""
    return {str(item): [rule.mapping for rule in item.rules] for item in plan.listeners}


BOTH = {FIRST: ["ban", "first"], SECOND: ["second"]}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"ban": None}, {FIRST: ["first"], SECOND: ["second"]}),
        (
            {"ban": mapping("ban", "lab", "web", action="deny", priority=200)},
            {FIRST: ["first", "ban"], SECOND: ["second"]},
        ),
        (
            {"ban": mapping("ban", "lab", "api", action="deny")},
            {FIRST: ["first"], SECOND: ["ban", "second"]},
        ),
        (
            {"more": mapping("more", "lab", "all", action="deny")},
            {FIRST: ["ban", "more", "first"], SECOND: ["more", "second"]},
        ),
        (
            {"first": mapping("first", "office", "api", "192.0.2.1:80")},
            {FIRST: ["first"], SECOND: ["second"]},
        ),
        (
            {"second": mapping("second", "office", "api,web", "192.0.2.1:81")},
            {FIRST: ["ban", "first"], SECOND: ["ban", "second"]},
        ),
        (
            {"third": mapping("third", "office", "web", "192.0.2.1:81")},
            {FIRST: ["ban", "first"], SECOND: ["ban", "second", "third"]},
        ),
        ({"first": None}, {SECOND: ["second"]}),
        ({"web": service("web", "10.7.0.0/24")}, BOTH | {FIRST: ["first"]}),
        ({"lab": service("lab", "10.3.0.0/16")}, BOTH),
    ],
    ids=[
        *("gone", "later", "about another service", "one more about all", "listener leads elsewhere"),
        *("listener leads there too", "another mapping there", "no listener", "no backend", "source moves"),
    ],
)
def test_restrictions_follow_every_change(
    changed: dict[str, Service | Mapping | None], expected: dict[str, list[str]]
) -> None:
    before = made()
    assert orders(before.plan) == BOTH
    after = made(before, **changed)
    assert orders(after.plan) == expected
    assert orders(made(after).plan) == BOTH


def test_a_restriction_by_collection_follows_its_members() -> None:
    by_collection = mapping("ban", "lab", "collection:front", action="deny")
    before = made(ban=by_collection)
    assert orders(before.plan) == BOTH
    joined = service("api", "10.1.0.2", collection="front")
    after = made(before, ban=by_collection, api=joined)
    assert orders(after.plan) == {FIRST: ["ban", "first"], SECOND: ["ban", "second"]}


def listeners(before: Compiled, after: Compiled) -> tuple[list[Listener], list[Listener]]:
    """Both listeners, before and after."""
    first, second = ([listener(each.plan, text) for text in (FIRST, SECOND)] for each in (before, after))
    return first, second


def test_a_changed_restriction_leaves_listeners_alone_that_it_does_not_meet() -> None:
    before = made()
    after = made(before, ban=mapping("ban", "lab", "web", action="deny", priority=7))
    (first, second), (first_after, second_after) = listeners(before, after)
    assert first_after is not first
    assert second_after is second


def test_a_moved_backend_leaves_restrictions_and_other_listeners_alone() -> None:
    before = made()
    after = made(before, web=service("web", "10.1.0.77"))
    (first, second), (first_after, second_after) = listeners(before, after)
    assert first_after.rules[0] is first.rules[0]
    assert first_after.rules[1] is not first.rules[1]
    assert second_after is second


def test_listeners_that_meet_the_same_share_the_rule() -> None:
    plan = made(third=mapping("third", "office", "web", "192.0.2.2:80")).plan
    assert listener(plan, FIRST).rules[0] is listener(plan, "192.0.2.2:80/tcp").rules[0]


def test_what_only_joins_comes_and_goes_with_what_opens() -> None:
    one_family = mapping("four", "office", "web4", "*:90")
    opener = mapping("both", "office", "web", "*:90")
    six = "[::]:90/tcp"
    alone = made(four=one_family)
    assert six not in orders(alone.plan)
    together = made(alone, four=one_family, both=opener)
    assert orders(together.plan)[six] == ["ban", "both", "four"]
    assert six not in orders(made(together, four=one_family).plan)
    assert orders(made(together, both=opener).plan)[six] == ["ban", "both"]


def test_a_family_is_listened_on_when_its_backend_arrives() -> None:
    before = made(four=mapping("four", "office", "web4", "*:90"))
    after = made(
        before,
        four=mapping("four", "office", "web4", "*:90"),
        web4=service("web4", "10.1.0.4", "2001:db8:1::4"),
    )
    assert orders(after.plan)["[::]:90/tcp"] == ["four"]
