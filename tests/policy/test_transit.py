"""A mapping without listen address as rules for what passes through."""

from typing import Any

import pytest

from marchproxy.model.entities import Mapping, Service
from marchproxy.model.ports import PortRange
from marchproxy.model.reason import Reason
from marchproxy.policy.compile import Compiled, compile_plan
from marchproxy.policy.plan import ANYONE, ICMP, Match, Plan, TransitRule
from tests.policy.build import NOW, cluster, mapping, plan, service, snapshot, texts

OFFICE = service("office", "10.0.0.0/16")
WEB = service("web", "198.51.100.1", port=443)
MAIL = service("mail", "198.51.100.2", port=25)
ANY = service("any", "198.51.100.3")
LOCKED = service("locked", "198.51.100.4", port=443, auth="token", collection="vault")
EVERY = (OFFICE, WEB, MAIL, ANY, LOCKED)
NAMES = tuple(sorted(each.name for each in EVERY))
TCP, UDP = 6, 17
HTTPS = (PortRange(443, 443),)


def rules(*entities: Service | Mapping, **fields: Any) -> tuple[TransitRule, ...]:
    """The transit rules of these beside the services of this module."""
    return plan(*EVERY, *entities, **fields).transit


def ends(rule: TransitRule) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Whom a rule is for."""
    return rule.sources, rule.excluded, rule.destinations, rule.excluded_destinations


@pytest.mark.parametrize(
    ("sources", "destinations", "expected"),
    [
        ("office", "web", [(("office",), (), ("web",), ())]),
        ("all", "external", [((ANYONE,), (), (ANYONE,), NAMES)]),
        ("external", "web", [((ANYONE,), NAMES, ("web",), ())]),
        ("all,office", "external,web", [((ANYONE,), (), (ANYONE,), NAMES), ((ANYONE,), (), ("web",), ())]),
        (
            "external,office",
            "external,web",
            [
                ((ANYONE,), NAMES, (ANYONE,), NAMES),
                ((ANYONE,), NAMES, ("web",), ()),
                (("office",), (), (ANYONE,), NAMES),
                (("office",), (), ("web",), ()),
            ],
        ),
        ("collection:none", "web", []),
        ("office", "collection:none", []),
    ],
)
def test_both_ends_are_said_alike(
    sources: str, destinations: str, expected: list[tuple[tuple[str, ...], ...]]
) -> None:
    found = rules(mapping("m", sources, destinations, ports="443"))
    assert [ends(rule) for rule in found] == expected


@pytest.mark.parametrize(
    ("destinations", "fields", "expected"),
    [
        ("web", {}, [(("web",), (Match(TCP, HTTPS),))]),
        ("any", {}, [(("any",), (Match(TCP),))]),
        (
            "any,mail,web",
            {},
            [
                (("any",), (Match(TCP),)),
                (("mail",), (Match(TCP, (PortRange(25, 25),)),)),
                (("web",), (Match(TCP, HTTPS),)),
            ],
        ),
        ("mail,web", {"ports": "443"}, [(("mail", "web"), (Match(TCP, HTTPS),))]),
        (
            "web",
            {"ports": "80,8000-8100"},
            [(("web",), (Match(TCP, (PortRange(80, 80), PortRange(8000, 8100))),))],
        ),
        ("web", {"protocols": "udp,tcp"}, [(("web",), (Match(TCP, HTTPS), Match(UDP, HTTPS)))]),
        ("web", {"protocols": "http,https,grpc"}, [(("web",), (Match(TCP, HTTPS),))]),
        ("web", {"protocols": "quic"}, [(("web",), (Match(UDP, HTTPS),))]),
        ("web", {"protocols": "icmp"}, [(("web",), (Match(ICMP),))]),
        ("web", {"protocols": "tcp,icmp"}, [(("web",), (Match(ICMP), Match(TCP, HTTPS)))]),
    ],
)
def test_ports_are_the_mappings_or_each_services_own(
    destinations: str, fields: dict[str, Any], expected: list[tuple[tuple[str, ...], tuple[Match, ...]]]
) -> None:
    found = rules(mapping("m", "office", destinations, **fields))
    assert [(rule.destinations, rule.matches) for rule in found] == expected


@pytest.mark.parametrize(
    ("destinations", "fields", "expected", "finding"),
    [
        ("web", {}, [Reason.FORWARDED], []),
        ("web", {"action": "deny"}, [Reason.DENY_MAPPING], []),
        ("all", {"action": "deny"}, [Reason.DENY_MAPPING], []),
        (
            "web",
            {"auth_required": True},
            [Reason.AUTH_MISSING],
            ["wants a credential, and none of its services has any: denied"],
        ),
        (
            "locked,web",
            {},
            [Reason.AUTH_MISSING, Reason.FORWARDED],
            ["wants a credential, and there is nobody to present it to: denied"],
        ),
        (
            "all",
            {},
            [Reason.AUTH_MISSING, Reason.FORWARDED],
            ["wants a credential, and there is nobody to present it to: denied"],
        ),
        ("external", {}, [Reason.FORWARDED], []),
        (
            "web",
            {"protocols": "http", "host": "x.example.com"},
            [Reason.NOT_CARRIED],
            ["looks at the host, which traffic that passes does not show: denied"],
        ),
        (
            "web",
            {"protocols": "http", "path_prefix": "/x", "action": "deny"},
            [Reason.NOT_CARRIED],
            ["looks at the path prefix, which traffic that passes does not show: denied"],
        ),
    ],
)
def test_what_cannot_be_tested_in_passing_is_refused(
    destinations: str, fields: dict[str, Any], expected: list[Reason], finding: list[str]
) -> None:
    made = plan(*EVERY, mapping("m", "office", destinations, **fields))
    assert [rule.reason for rule in made.transit] == expected
    assert texts(made.findings) == [f"warning mapping m: {text}" for text in finding]


def test_first_match_order_is_that_of_listeners() -> None:
    found = plan(
        *EVERY,
        mapping("late", "all", "web", priority=200),
        mapping("b", "all", "web"),
        mapping("z", "all", "web", action="deny"),
        mapping("a", "all", "web"),
        cluster(WEB, mapping("first", "all", "web", priority=1), name="other"),
    ).transit
    assert [rule.mapping for rule in found] == ["other/first", "z", "a", "b", "late"]


def test_both_ends_have_their_prefixes_in_the_plan() -> None:
    assert set(plan(*EVERY, mapping("m", "office", "web")).sources) == {"office", "web"}
    assert set(plan(*EVERY, mapping("m", "office", "external")).sources) == set(NAMES)
    assert set(plan(*EVERY, mapping("m", "office", "all")).sources) == {"office", "locked"}
    assert set(plan(*EVERY, mapping("m", "office", "all", action="deny")).sources) == {"office"}
    assert set(plan(*EVERY, mapping("m", "office", "collection:none")).sources) == set()


def test_names_of_both_ends_are_resolved() -> None:
    source, destination = service("from", "a.example.com"), service("to", "b.example.com")
    made = plan(source, destination, mapping("m", "from", "to"))
    assert made.names == {"a.example.com", "b.example.com"}


def test_a_listening_mapping_is_for_its_listener_only() -> None:
    assert rules(mapping("m", "office", "web", "192.0.2.1:443")) == ()


def test_an_expired_mapping_matches_nothing() -> None:
    assert rules(mapping("m", "office", "web", expires="2025-12-31T23:59:59Z")) == ()


BASE: dict[str, Service | Mapping | None] = {
    **{each.name: each for each in EVERY},
    "one": mapping("one", "office", "web", description="first"),
    "two": mapping("two", "office", "collection:vault"),
    "three": mapping("three", "external", "all"),
    "four": mapping("four", "office", "mail", ports="26"),
}


def made(previous: Compiled | None = None, **changed: Service | Mapping | None) -> Compiled:
    """What `BASE` with changes compiles to, which is the same as from scratch."""
    wanted = snapshot(*(part for part in (BASE | changed).values() if part is not None))
    result = compile_plan(wanted, now=NOW, previous=previous)
    assert result == compile_plan(wanted, now=NOW)
    return result


def replaced(before: Plan, after: Plan) -> set[str]:
    """Mappings whose rules are not the very objects they were."""
    kept = {id(rule) for rule in before.transit} & {id(rule) for rule in after.transit}
    return {rule.mapping for rule in (*before.transit, *after.transit) if id(rule) not in kept}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, set()),
        ({"one": mapping("one", "office", "web", description="second")}, set()),
        ({"one": mapping("one", "office", "web", priority=7)}, {"one"}),
        ({"one": None}, {"one"}),
        ({"office": service("office", "10.7.0.0/16")}, set()),
        ({"web": service("web", "198.51.100.77", port=443)}, set()),
        ({"web": service("web", "198.51.100.1", port=8443)}, {"one"}),
        ({"mail": service("mail", "198.51.100.2", port=2525)}, set()),
        ({"web": service("web", "198.51.100.1", port=443, auth="token")}, {"one", "three"}),
        ({"new": service("new", "198.51.100.9")}, {"three"}),
        ({"new": service("new", "198.51.100.9", collection="vault")}, {"two", "three"}),
        ({"locked": service("locked", "198.51.100.4", port=443, collection="vault")}, {"two", "three"}),
    ],
    ids=[
        *("nothing", "description", "priority", "removed", "source moves", "destination moves", "port"),
        *("port beside the mapping's", "credential", "service", "member", "no credential"),
    ],
)
def test_what_did_not_change_is_the_same_object(
    changed: dict[str, Service | Mapping | None], expected: set[str]
) -> None:
    before = made()
    after = made(before, **changed)
    assert replaced(before.plan, after.plan) == expected
    if not expected:
        assert after.plan.transit is before.plan.transit
    assert made(after).plan == before.plan
