"""limits: what holds for whom, and how much."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.model.address import IPAddress, Prefix
from marchproxy.model.appliance import Limit, Per
from marchproxy.model.documents import read_entity
from marchproxy.policy.check import check
from marchproxy.policy.limits import NOTHING, Allowance, Bucket, Held, allowances, classify
from marchproxy.policy.plan import RateLimit
from tests.limits import packets, rate
from tests.policy.build import compiled, mapping, service, snapshot, texts


def limit(name: str, per: str = "source", **fields: Any) -> Limit:
    """A limit of 100 packets a second, unless it says otherwise."""
    rates = {} if any(field.endswith("_per_second") for field in fields) else {"packets_per_second": 100}
    read = read_entity(Limit, {"name": name, "per": per, **rates, **fields})
    assert isinstance(read, Limit)
    return read


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"packets_per_second": 1000}, (Allowance(1000, 100), None, None)),
        ({"packets_per_second": 5}, (Allowance(5, 1), None, None)),
        ({"packets_per_second": 1000, "burst": 7}, (Allowance(1000, 7), None, None)),
        ({"bytes_per_second": 10**6, "burst": 3000}, (None, Allowance(10**6, 3000), None)),
        ({"flows_per_second": 50, "burst": 200}, (None, None, Allowance(50, 200))),
        (
            {"packets_per_second": 100, "bytes_per_second": 10**5, "flows_per_second": 3, "burst": 50},
            (Allowance(100, 50), Allowance(10**5, 50_000), Allowance(3, 1)),
        ),
    ],
)
def test_a_burst_is_counted_in_the_first_rate_and_is_a_tenth_of_a_second_by_default(
    fields: dict[str, Any], wanted: tuple[Allowance | None, ...]
) -> None:
    assert allowances(limit("x", **fields)) == wanted


def test_limits_of_the_snapshot_know_their_services() -> None:
    made = compiled(
        service("office", "10.0.0.0/8", "names.example.com"),
        limit("a", services=["office"]),
        limit("b", "total"),
        names={"names.example.com": (ip_address("192.0.2.9"),)},
    )
    office = (ip_network("10.0.0.0/8"), ip_network("192.0.2.9/32"))
    assert [each.sources for each in made.plan.limits] == [(("office", office),), ()]
    assert "names.example.com" in made.plan.names


def test_what_did_not_change_stays_the_same_object() -> None:
    entities = (service("office", "10.0.0.0/8"), limit("a", services=["office"]), limit("b", "total"))
    first = compiled(*entities)
    assert compiled(*entities, previous=first).plan.limits is first.plan.limits
    moved = compiled(service("office", "10.0.0.0/9"), *entities[1:], previous=first).plan.limits
    assert moved[0] != first.plan.limits[0]
    assert moved[1] is first.plan.limits[1]


def test_findings() -> None:
    entities = (
        service("office", "10.0.0.0/8"),
        service("idle", "10.1.0.0/16"),
        service("web", "192.0.2.7", port=80),
        mapping("www", "office", "web", "*:80"),
        limit("a", services=["nobody"]),
        limit("b", "service", services=["idle", "office"]),
        limit("c", packets_per_second=1_000_000, burst=100),
        limit("d", packets_per_second=1_000_000, burst=1000),
        limit("e", flows_per_second=5),
        limit("f", services=["office"]),
        limit("g", services=["office"], bytes_per_second=7),
    )
    found = [text for text in texts(check(snapshot(*entities), compiled(*entities))) if "limit " in text]
    assert found == [
        "error limit a: names service nobody, which does not exist",
        "warning limit c: lets through 100 at once, less than come in a millisecond at that rate",
        "warning limit d: its rate of packets does not hold where limit c is for the same clients",
        "warning limit a: is for nobody, which no mapping names as a source",
        "warning limit b: is for idle, which no mapping names as a source",
    ]


def test_of_limits_per_source_the_longest_prefix_holds() -> None:
    limits = (
        packets("source", 1),
        rate("wide", "source", {"w": "10.0.0.0/8"}, packets_per_second=1),
        rate("narrow", "source", {"n": "10.1.0.0/16"}, exempt="10.1.1.0/24", packets_per_second=1),
    )
    held = {
        address: hold(limits, address).own[0] for address in ("9.0.0.1", "10.0.0.1", "10.1.0.1", "10.1.1.1")
    }
    assert list(held.values()) == ["source-packets", "wide", "narrow", "wide"]
    assert hold(limits, "::1").own == ("source-packets", "", "")


def test_limits_per_source_with_different_rates_hold_together() -> None:
    limits = (
        rate("flows", "source", flows_per_second=1),
        rate("all", "source", packets_per_second=1, bytes_per_second=1),
        rate("some", "source", {"a": "10.0.0.0/8"}, packets_per_second=5),
    )
    assert hold(limits, "10.0.0.1").own == ("some", "all", "flows")
    assert hold(limits, "11.0.0.1").own == ("all", "all", "flows")


def test_all_shared_limits_hold() -> None:
    limits = (
        rate("each", "service", {"a": "10.0.0.0/8", "b": "10.1.0.0/16"}, packets_per_second=1),
        rate("both", "total", {"a": "10.0.0.0/8", "b": "10.1.0.0/16"}, packets_per_second=1),
    )
    a, b, both = Bucket("each", "a"), Bucket("each", "b"), Bucket("both", "")
    assert hold(limits, "10.1.0.1").shared == (both, a, b)
    assert hold(limits, "10.2.0.1").shared == (both, a)
    assert hold(limits, "11.0.0.1") == NOTHING


def hold(limits: tuple[RateLimit, ...], address: str) -> Held:
    """By the longest prefix, as the tiers look it up."""
    found, asked = classify(limits), ip_address(address)
    around = [prefix for prefix in found if asked in prefix]
    return found[max(around, key=lambda prefix: prefix.prefixlen)] if around else NOTHING


ADDRESSES = st.sampled_from([ip_address(text) for text in ("10.0.0.1", "10.0.0.9", "10.9.0.1", "fd00::1")])
PREFIXES = st.sampled_from(
    [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/24",
        "10.0.0.0/29",
        "10.0.0.1/32",
        "::/0",
        "fd00::/8",
        "fd00::1/128",
    ]
)
TEXTS = st.lists(PREFIXES, max_size=3).map(",".join)
LIMITS = st.lists(
    st.builds(
        lambda per, sources, exempt, rates: (
            per,
            sources if per != "service" or sources else {"s": ""},
            exempt,
            rates,
        ),
        st.sampled_from(list(Per)),
        st.dictionaries(st.sampled_from("st"), TEXTS, max_size=2),
        TEXTS,
        st.sets(st.sampled_from(["packets", "bytes", "flows"]), min_size=1),
    ),
    max_size=4,
).map(
    lambda drawn: tuple(
        rate(f"l{number}", per, sources, exempt, **{f"{kind}_per_second": 1 for kind in rates})
        for number, (per, sources, exempt, rates) in enumerate(drawn)
    )
)


@given(LIMITS, ADDRESSES)
def test_classes_are_what_going_through_all_limits_gives(
    limits: tuple[RateLimit, ...], address: IPAddress
) -> None:
    assert hold(limits, str(address)) == _slowly(limits, address)


def _slowly(limits: tuple[RateLimit, ...], address: IPAddress) -> Held:
    own, best = ["", "", ""], [-1, -1, -1]
    shared = set()
    for each in limits:
        if any(address in prefix for prefix in each.limit.exempt):
            continue
        for name, prefixes in each.sources or (("", _everything(each)),):
            lengths = [prefix.prefixlen for prefix in prefixes if address in prefix]
            if not lengths:
                continue
            if each.limit.per is not Per.SOURCE:
                shared.add(Bucket(each.limit.name, name if each.limit.per is Per.SERVICE else ""))
                continue
            rank = max(lengths) * 2 + bool(name)
            for number, allowed in enumerate(allowances(each.limit)):
                if allowed and rank > best[number]:
                    own[number], best[number] = each.limit.name, rank
    return Held((own[0], own[1], own[2]), tuple(sorted(shared)))


def _everything(each: RateLimit) -> tuple[Prefix, ...]:
    return () if each.limit.services else (ip_network("0.0.0.0/0"), ip_network("::/0"))
