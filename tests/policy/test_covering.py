"""Earlier rules that cover a later one."""

import pytest
from hypothesis import given

from marchproxy.policy.bits import TransitIndex
from marchproxy.policy.covering import Covers
from marchproxy.policy.plan import ICMP, TransitRule
from tests.policy.build import mapping, plan, service
from tests.policy.test_bits import MEMBERS, PORTS, RULES, TCP, UDP

OFFICE = service("office", "10.0.0.0/16")
LAB = service("lab", "10.3.0.0/16")
WEB = service("web", "10.1.0.1")
API = service("api", "10.1.0.2", port=8443)


def covering(*words: tuple[str, str, str, str]) -> list[str]:
    """Mappings that together cover the last one, each given as sources, destinations, protocols and ports."""
    mappings = [
        mapping(f"m{number}", sources, destinations, None, protocols, priority=number, ports=ports)
        for number, (sources, destinations, protocols, ports) in enumerate(words)
    ]
    made = plan(OFFICE, LAB, WEB, API, *mappings)
    return [
        rule.mapping
        for rule in Covers(made.transit, made.sources, frozenset()).earlier(len(made.transit) - 1)
    ]


@pytest.mark.parametrize(
    ("earlier", "later", "covered"),
    [
        (("tcp", ""), ("tcp", "80"), True),
        (("tcp", "80"), ("tcp", ""), False),
        (("tcp", "1-100"), ("tcp", "80,90"), True),
        (("tcp", "1-100"), ("tcp", "80,190"), False),
        (("tcp", "1-100,190"), ("tcp", "80,190"), True),
        (("udp", "80"), ("tcp", "80"), False),
        (("tcp,udp", "80"), ("udp", "80"), True),
        (("tcp", ""), ("tcp,icmp", ""), False),
        (("icmp", ""), ("icmp", ""), True),
    ],
)
def test_protocols_and_ports(earlier: tuple[str, str], later: tuple[str, str], covered: bool) -> None:
    assert covering(("office", "web", *earlier), ("office", "web", *later)) == (["m0"] if covered else [])


def test_several_together() -> None:
    every = [(source, to, "tcp", "") for source in ("office", "lab") for to in ("web", "api")]
    wanted = ("lab,office", "api,web", "tcp", "8443")
    assert covering(*every, wanted) == ["m0", "m1", "m2", "m3"]
    assert covering(*every[1:], wanted) == []


def test_more_than_a_few_together_are_not_looked_for() -> None:
    names = [f"s{number}" for number in range(70)]
    services = [service(name, f"10.9.0.{number}") for number, name in enumerate(names)]
    single = [mapping(name, name, "web", priority=1) for name in names]
    made = plan(WEB, *services, *single, mapping("zz", ",".join(names), "web"))
    assert Covers(made.transit, made.sources, frozenset()).earlier(70) == []
    whole = plan(WEB, *services, mapping("aa", ",".join(names), "web"), mapping("zz", ",".join(names), "web"))
    assert len(Covers(whole.transit, whole.sources, frozenset()).earlier(1)) == 1


@given(
    RULES.map(lambda rules: [rule for rule in rules if rule.sources and rule.destinations]), MEMBERS, MEMBERS
)
def test_what_is_covered_is_never_the_first_to_match(
    rules: list[TransitRule], sources: frozenset[str], destinations: frozenset[str]
) -> None:
    rules = [rule for rule in rules if rule.sources and rule.destinations]
    covers, index = Covers(rules, {}, frozenset()), TransitIndex(rules)
    covered = {id(rule) for number, rule in enumerate(rules) if covers.earlier(number)}
    for protocol, port in [(ICMP, 0), *((each, port) for each in (TCP, UDP) for port in PORTS)]:
        assert id(index.find(sources, destinations, protocol, port)) not in covered
