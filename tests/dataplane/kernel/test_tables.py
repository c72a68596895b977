"""tables: whatever plans came before, the maps decide as the reference evaluator does."""

from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marchproxy.dataplane.kernel import banks, layouts, tables
from marchproxy.dataplane.kernel.banks import Banks
from marchproxy.dataplane.kernel.entries import Tables
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.dataplane.kernel.settings import Settings
from marchproxy.dataplane.kernel.tables import TableBuilder, difference
from marchproxy.model.address import IPAddress
from marchproxy.model.appliance import Settings as ApplianceSettings
from marchproxy.model.entities import MAX_LISTEN_PORTS, Mapping
from marchproxy.model.reason import Reason
from marchproxy.model.snapshot import Snapshot
from marchproxy.policy.compile import Compiled, compile_plan
from marchproxy.policy.evaluate import Evaluator, Query
from marchproxy.policy.plan import Plan
from tests.dataplane.kernel.fakes import FakeNames, fake_policy_maps
from tests.dataplane.kernel.interpreter import interpret, reference
from tests.policy import strategies
from tests.policy.build import NOW, compiled, mapping, plan, service
from tests.policy.build import snapshot as snapshot_of

TABLES = [name for name in Tables.__slots__ if name != "port_classes"]
OWN_ADDRESS = IPv4Address("10.2.0.1")
CLIENTS = [service(f"c{number}", f"10.0.{number}.0/24") for number in range(100)]
WEB = service("web", "10.2.0.2", "10.2.0.3", port=80)


def own_address(_: IPAddress) -> IPAddress:
    return OWN_ADDRESS


def sizes(made: Tables) -> dict[str, int]:
    """How much there is of everything, whatever its numbers."""
    counts = {
        name: len(getattr(made, name).entries)
        for name in TABLES
        if not name.endswith(("bits", "digests", "extents"))
    }
    bits = {name: getattr(made, name).entries.values() for name in ("bits", "transit_bits")}
    return counts | {name: sum(mask.bit_count() for mask in masks) for name, masks in bits.items()}


@given(
    snapshots=st.lists(strategies.snapshots(), min_size=1, max_size=4),
    names=strategies.names(),
    queries=st.lists(strategies.queries(), min_size=1, max_size=10),
    following=st.booleans(),
)
@settings(max_examples=100)
def test_the_maps_decide_as_the_evaluator(
    snapshots: list[Snapshot],
    names: dict[str, tuple[IPAddress, ...]],
    queries: list[Query],
    following: bool,
) -> None:
    numbers, maps = FakeNames(), fake_policy_maps()
    builder, written = TableBuilder(numbers.number, own_address), Banks(maps, Settings(maps["settings"]))
    done: Compiled | None = None
    for revision, snapshot in enumerate(snapshots, 1):
        done = compile_plan(snapshot, names=names, now=NOW, previous=done)
        written.switch(builder.build(done.plan), revision)
        # What is admitted is not in the maps: it passes to the host, where user space has it.
        evaluator = Evaluator(replace(done.plan, listeners=done.plan.carried, admitted=frozenset()))
        for query in queries:
            assert interpret(maps, numbers, query) == reference(evaluator, query), query
        if following:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(banks, "GRACE", -1)
                written.follow()
        fresh = TableBuilder(numbers.number, own_address)
        assert sizes(builder.tables) == sizes(fresh.build(done.plan))


def test_what_audit_lets_through_for_want_of_a_mapping_has_no_number() -> None:
    names = FakeNames()
    wanted = snapshot_of(*CLIENTS, WEB, mapping("m", "c1", "web", "192.0.2.1:80"))
    made = compile_plan(replace(wanted, settings=ApplianceSettings(audit=True)), now=NOW).plan
    rules = TableBuilder(names.number, own_address).build(made).rules.entries
    found = [layouts.RULE.struct.unpack(rules[number]) for number in sorted(rules)]
    assert [(mapping, reason, flags) for mapping, _, _, reason, flags, _ in found] == [
        (names["m"], Reason.FORWARDED, 0),
        (0, Reason.NO_MAPPING, layouts.RULE_AUDIT),
    ]
    assert list(names) == ["m"]


def test_nothing_stays_of_a_plan_that_is_gone() -> None:
    builder = TableBuilder(FakeNames().number, own_address)
    empty = sizes(builder.tables)
    builder.build(plan(*CLIENTS, WEB, mapping("m", "c1,external", "web", "*:80", "tcp,udp")))
    assert sizes(builder.build(Plan())) == empty


def pending(made: Tables) -> dict[str, int]:
    """How many entries of each map the next switch would write."""
    found = {name: len(getattr(made, name).pending[0]) for name in TABLES}
    return {name: count for name, count in found.items() if count}


@pytest.mark.parametrize(
    ("changed", "most"),
    [
        (mapping("m5", "c7", "web", "*:1005"), {"listeners": 2, "rules": 2, "bits": 4, "class_lines": 2}),
        (
            mapping("new", "late", "web", "*:9000"),
            {"listeners": 2, "rules": 2, "bits": 2, "class_lines": 2},
        ),
    ],
    ids=["another source, the old one in use nowhere else", "one more, with a source not used before"],
)
def test_a_change_writes_its_own_size(changed: Mapping, most: dict[str, int]) -> None:
    services = [*CLIENTS, WEB, service("late", "192.0.2.77")]
    mappings = [mapping(f"m{number}", f"c{number}", "web", f"*:{1000 + number}") for number in range(100)]
    before = compiled(*services, *mappings)
    builder = TableBuilder(FakeNames().number, own_address)
    builder.build(before.plan)
    for name in TABLES:
        getattr(builder.tables, name).pending[0].clear()
    kept = [each for each in mappings if each.name != changed.name]
    builder.build(compiled(*services, *kept, changed, previous=before).plan)
    found = pending(builder.tables)
    assert found.keys() == most.keys()
    assert all(found[name] <= most[name] for name in most), found


def test_difference_is_by_identity() -> None:
    old = plan(WEB, *(mapping(f"m{port}", "all", "web", f"192.0.2.1:{port}") for port in (80, 81, 82)))
    new = plan(WEB, *(mapping(f"m{port}", "all", "web", f"192.0.2.1:{port}") for port in (79, 81, 83)))
    one, two, three = old.listeners
    first, second, third = new.listeners
    assert difference([one, two, three], [one, two, three]) == ([], [])
    assert difference([one, two, three], [first, two, third]) == ([one, three], [first, third])
    gone, came = difference([one, two], [one, second])
    assert (gone[0] is two, came[0] is second) == (True, True), "equal, and yet another"
    assert difference([], [one]) == ([], [one])
    assert difference([one], []) == ([one], [])


def test_difference_of_what_is_not_sorted_is_too_large_and_not_wrong() -> None:
    made = plan(WEB, *(mapping(f"m{port}", "all", "web", f"192.0.2.1:{port}") for port in (80, 81)))
    one, two = made.listeners
    gone, came = difference([one, two], [two, one])
    assert {id(each) for each in gone} == {id(each) for each in came}


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        ("LISTENERS", "listeners"),
        ("SOURCE_BITS", "pairs of source and mapping"),
        ("RULES", "rules of listeners"),
        ("POOL_SLOTS", "backend slots"),
    ],
)
def test_what_does_not_fit_is_named(limit: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, limit, 1)
    made = plan(
        *CLIENTS[:2], WEB, mapping("a", "c0,c1", "web", "0.0.0.0:80"), mapping("b", "c1", "web", "0.0.0.0:81")
    )
    with pytest.raises(PlanTooLarge, match=f"too many {what}: the kernel's table holds 1") as refused:
        TableBuilder(FakeNames().number, own_address).build(made)
    assert refused.value.hint


def test_a_listener_key_is_that_of_the_programs() -> None:
    (listener,) = plan(WEB, mapping("m", "all", "web", "192.0.2.1:80", "udp")).listeners
    key = layouts.LISTENER_KEY.struct.pack(layouts.pack_address(ip_address("192.0.2.1")), b"\0\x50", 17, 1)
    assert tables.listener_key(listener) + b"\1" == key


def test_a_range_of_ports_costs_the_rules_of_one() -> None:
    ranged = mapping("m", "c0,c1", "web", "*:9000-9999")
    builder = TableBuilder(FakeNames().number, own_address)
    made = compiled(*CLIENTS[:2], WEB, ranged)
    built = builder.build(made.plan)
    assert (len(built.listeners.entries), len(built.rules.entries)) == (1000, 1)
    single = mapping("no", "c0", "web", "0.0.0.0:9500", action="deny")
    following = compiled(*CLIENTS[:2], WEB, ranged, single, previous=made)
    built = builder.build(following.plan)
    assert (len(built.listeners.entries), len(built.rules.entries)) == (1000, 1 + 2)
    fresh = TableBuilder(FakeNames().number, own_address).build(following.plan)
    assert sizes(built) == sizes(fresh)
    assert sizes(builder.build(Plan())) == sizes(TableBuilder(FakeNames().number, own_address).build(Plan()))


def test_the_longest_ranges_fill_the_table_of_listeners_and_no_more() -> None:
    assert MAX_LISTEN_PORTS * 2 * 2 == layouts.LISTENERS
