"""The index against a walk over all rules."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.model.entities import Action
from marchproxy.model.ports import PortRange, merge
from marchproxy.model.reason import Reason
from marchproxy.policy.bits import Ends, Matches, TransitIndex, lowest
from marchproxy.policy.plan import ANYONE, ICMP, Match, TransitRule
from tests.policy.build import mapping, plan, service

SERVICES = "abcd"
TCP, UDP = 6, 17
PORTS = [1, 2, 79, 80, 81, 82, 65534, 65535]

_names = st.lists(st.sampled_from(SERVICES), unique=True, max_size=3).map(tuple)
_audiences = st.tuples(st.just((ANYONE,)) | _names, st.just(()) | _names)
_ranges = st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)).map(
    lambda ends: PortRange(min(ends), max(ends))
)
_matches = st.lists(
    st.just(Match(ICMP))
    | st.builds(Match, st.sampled_from([TCP, UDP]), st.lists(_ranges, max_size=3).map(merge)),
    min_size=1,
    max_size=3,
    unique_by=lambda match: match.protocol,
).map(tuple)


def _rule(
    sources: tuple[tuple[str, ...], tuple[str, ...]],
    destinations: tuple[tuple[str, ...], tuple[str, ...]],
    matches: tuple[Match, ...],
) -> TransitRule:
    return TransitRule("m", 1, *sources, *destinations, matches, Reason.FORWARDED, action=Action.ALLOW)


RULES = st.lists(st.builds(_rule, _audiences, _audiences, _matches), max_size=8)
MEMBERS = st.frozensets(st.sampled_from(SERVICES))


def is_for(services: frozenset[str], included: tuple[str, ...], excluded: tuple[str, ...]) -> bool:
    """Whether an address in exactly these services is meant."""
    return (included == (ANYONE,) or bool(services & {*included})) and not services & {*excluded}


def takes(matches: tuple[Match, ...], protocol: int, port: int) -> bool:
    """Whether protocol and port are among these."""
    return any(
        match.protocol == protocol and (not match.ports or any(port in each for each in match.ports))
        for match in matches
    )


def between(
    rules: list[TransitRule], sources: frozenset[str], destinations: frozenset[str]
) -> list[TransitRule]:
    """The rules for these services."""
    return [
        rule
        for rule in rules
        if is_for(sources, rule.sources, rule.excluded)
        and is_for(destinations, rule.destinations, rule.excluded_destinations)
    ]


@given(RULES, st.lists(st.tuples(MEMBERS, MEMBERS), min_size=1, max_size=5))
def test_the_first_rule_is_found_that_matches_in_every_dimension(
    rules: list[TransitRule], ends: list[tuple[frozenset[str], frozenset[str]]]
) -> None:
    index = TransitIndex(rules)
    for sources, destinations in ends:
        expected = between(rules, sources, destinations)
        found = list(index.between(sources, destinations))
        assert [id(rule) for rule in found] == [id(rule) for rule in expected]
        for protocol, port in [(ICMP, 0), *((each, port) for each in (TCP, UDP) for port in PORTS)]:
            first = next((rule for rule in expected if takes(rule.matches, protocol, port)), None)
            assert index.find(sources, destinations, protocol, port) is first


def test_a_protocol_that_no_rule_names_matches_nothing() -> None:
    assert Matches([(Match(TCP),)]).bits(UDP, 80) == 0
    assert Matches([]).bits(TCP, 80) == 0
    assert Ends([]).bits(frozenset("a")) == 0


def test_lowest_is_the_number_of_the_first_bit() -> None:
    assert [lowest(1 << number | 1 << 200) for number in (0, 7, 199)] == [0, 7, 199]


@pytest.mark.parametrize(
    ("fields", "leads"),
    [
        ({}, True),
        ({"action": "deny"}, False),
        ({"action": "deny", "audit": True}, True),
        ({"auth_required": True}, False),
        ({"sni": True}, True),
    ],
)
def test_whether_anything_leads_anywhere(fields: dict[str, Any], leads: bool) -> None:
    lan, web = service("lan", "10.0.0.0/8"), service("web", "192.0.2.1")
    made = TransitIndex(plan(lan, web, mapping("m", "lan", "web", ports="80-90", **fields)).transit)
    assert made.leads(frozenset({"lan"}), 6, 85) is leads
    assert made.leads(frozenset({"lan"}), 6, 0) is leads
    assert not made.leads(frozenset({"lan"}), 6, 91)
    assert not made.leads(frozenset({"lan"}), 17, 0)
    assert not made.leads(frozenset(), 6, 85)
