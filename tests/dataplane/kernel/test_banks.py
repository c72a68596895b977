"""banks: what is read is never half of something, and a change writes what it changes."""

from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from marchproxy import bpf
from marchproxy.dataplane.kernel import banks, layouts
from marchproxy.dataplane.kernel.banks import Banks
from marchproxy.dataplane.kernel.entries import Tables
from marchproxy.dataplane.kernel.errors import MapFull
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.settings import Settings
from marchproxy.dataplane.kernel.tables import TableBuilder
from marchproxy.model.reason import Reason
from marchproxy.policy.compile import Compiled
from marchproxy.policy.evaluate import Evaluator, Query
from tests.dataplane.kernel.fakes import FakeMap, FakeNames, fake_policy_maps, written
from tests.dataplane.kernel.interpreter import interpret, reference
from tests.policy.build import compiled, mapping, query, service

OFFICE, LAB = service("office", "10.0.0.0/16"), service("lab", "10.0.9.0/24", "2001:db8::/32")
WEB = service("web", "10.2.0.2", "10.2.0.3", "fd02::2", port=80)
POLICY_MAPS = ("listeners", "rules", "pools", "backends", "address_classes", "class_lines", "source_bits")
QUERIES = [
    query(source, destination, port)
    for source in ("10.0.0.1", "10.0.9.1", "203.0.113.1", "2001:db8::5")
    for destination in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "198.51.100.1")
    for port in (80, 81)
]
BOTH = compiled(
    *(OFFICE, LAB, WEB),
    mapping("www", "office", "web", "*:80"),
    mapping("not-lab", "lab", "web", "192.0.2.1:80", action="deny", priority=1),
    mapping("out", "external", "web", "192.0.2.1:81"),
)
LESS = compiled(OFFICE, LAB, WEB, mapping("www", "lab", "web", "*:80"), previous=BOTH)


class Bench:
    """A builder and banks over some maps."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self.maps = maps
        self.names = FakeNames()
        self.settings = Settings(maps["settings"])
        self.banks = Banks(maps, self.settings)
        self.new_builder()

    def new_builder(self) -> None:
        self.builder = TableBuilder(self.names.number, lambda _: IPv4Address("10.2.0.1"))

    def apply(self, made: Compiled, revision: int = 1) -> Tables:
        tables = self.builder.build(made.plan)
        self.banks.switch(tables, revision)
        return tables

    def agrees_with(self, made: Compiled) -> bool:
        evaluator = Evaluator(made.plan)
        return all(self.decide(each) == reference(evaluator, each) for each in QUERIES)

    def decide(self, asked: Query) -> object:
        return interpret(self.maps, self.names, asked)


@pytest.fixture
def bench() -> Bench:
    return Bench(fake_policy_maps())


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(banks, "GRACE", -1.0)


def test_each_plan_takes_the_other_bank(bench: Bench) -> None:
    for revision, made in enumerate((BOTH, LESS, BOTH, LESS), 1):
        bench.apply(made, revision)
        assert (bench.settings.bank, bench.settings.revision) == (revision % 2, revision)
        assert bench.agrees_with(made)


def test_before_the_switch_nothing_that_is_read_changes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.apply(BOTH)
    tables = bench.builder.build(LESS.plan)
    monkeypatch.setattr(bench.settings, "change", lambda **_: None)
    bench.banks.switch(tables, 2)
    assert bench.agrees_with(BOTH)


def test_what_follows_leaves_only_the_next_change_to_write(bench: Bench, no_grace: None) -> None:
    many = [mapping(f"m{number}", "office", "web", f"*:{1000 + number}") for number in range(50)]
    first = compiled(OFFICE, LAB, WEB, *many)
    bench.apply(first)
    bench.banks.follow()
    assert bench.agrees_with(first)
    before = written(bench.maps)
    after = compiled(OFFICE, LAB, WEB, *many[1:], mapping("m0", "lab", "web", "*:1000"), previous=first)
    bench.apply(after)
    assert written(bench.maps) - before < 20
    assert bench.agrees_with(after)


def test_the_bank_that_was_just_left_may_still_be_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(banks, "GRACE", 3600.0)
    bench.apply(BOTH)
    before = written(bench.maps)
    bench.banks.follow()
    assert written(bench.maps) == before


def test_there_is_nothing_to_follow_before_the_first_plan(bench: Bench, no_grace: None) -> None:
    bench.banks.follow()
    assert written(bench.maps) == 0


def test_an_earlier_daemon_s_entries_go(bench: Bench) -> None:
    bench.apply(BOTH)
    bench.apply(LESS)
    successor = Bench(bench.maps)
    successor.names = bench.names
    successor.new_builder()
    for _ in range(2):
        successor.apply(LESS)
        assert successor.agrees_with(LESS)
    fresh = Bench(fake_policy_maps())
    fresh.apply(LESS)
    fresh.apply(LESS)
    for name in ("listeners", "address_classes", "source_bits"):
        assert len(list(bench.maps[name].keys())) == len(list(fresh.maps[name].keys()))
    assert lines_in(bench) == lines_in(fresh)


def lines_in(bench: Bench) -> dict[bytes, bytes]:
    """The lines of addresses that say anything, of both banks."""
    held = bench.maps["class_lines"]
    assert isinstance(held, FakeMap)
    return {key: value for key, value in held.entries.items() if any(value)}


def test_what_does_not_fit_leaves_the_old_policy(bench: Bench, no_grace: None) -> None:
    bench.apply(LESS)
    listeners = bench.maps["listeners"]
    assert isinstance(listeners, FakeMap)
    listeners.max_entries = len(listeners.entries) + 1
    with pytest.raises(MapFull):
        bench.apply(BOTH, 2)
    assert bench.settings.revision == 1
    assert bench.agrees_with(LESS)
    listeners.max_entries = 1 << 20
    bench.new_builder()
    bench.apply(BOTH, 3)
    assert bench.agrees_with(BOTH)
    bench.banks.follow()
    bench.apply(LESS, 4)
    assert bench.agrees_with(LESS)


def refuse_listeners(bench: Bench, monkeypatch: pytest.MonkeyPatch, made: Compiled) -> None:
    """Fail at the last map, when all others are written."""

    def refuse(*_: object) -> None:
        raise MapFull("listeners", 1, written=0, errno=7)

    with monkeypatch.context() as patch:
        patch.setattr(bench.maps["listeners"], "update_many", refuse)
        with pytest.raises(MapFull):
            bench.apply(made, 9)


def test_a_bank_that_failed_half_way_is_written_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.apply(LESS)
    refuse_listeners(bench, monkeypatch, BOTH)
    assert bench.agrees_with(LESS)
    bench.apply(BOTH, 2)
    assert bench.agrees_with(BOTH)


def test_a_bank_with_half_of_another_policy_is_written_anew(
    bench: Bench, no_grace: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench.apply(LESS)
    bench.banks.follow()
    bench.new_builder()
    refuse_listeners(bench, monkeypatch, BOTH)
    bench.banks.switch(first, 2)
    assert bench.agrees_with(LESS)


@pytest.mark.requires("bpf", "ringbuf")
def test_over_the_kernel_s_own_maps(no_grace: None) -> None:
    with BpfObject.load(Path(bpf.OBJECTS / "tc.bpf.o")) as loaded:
        bench = Bench(loaded.maps)
        for revision, made in enumerate((BOTH, LESS, BOTH), 1):
            bench.apply(made, revision)
            assert bench.agrees_with(made)
            bench.banks.follow()
            assert bench.agrees_with(made)
        successor = Bench(loaded.maps)
        successor.apply(LESS, 9)
        assert successor.agrees_with(LESS)
        assert Settings(loaded.maps["settings"]).revision == 9


@pytest.mark.requires("bpf", "ringbuf")
def test_tables_are_as_large_as_the_maps() -> None:
    with BpfObject.load(Path(bpf.OBJECTS / "tc.bpf.o")) as loaded:
        sizes = {name: loaded.maps[name].max_entries // layouts.BANKS for name in POLICY_MAPS}
    assert sizes == {
        "listeners": layouts.LISTENERS,
        "rules": layouts.RULES,
        "pools": layouts.POOL_SLOTS,
        "backends": layouts.BACKENDS,
        "address_classes": layouts.PREFIXES,
        "class_lines": layouts.CLASS_LINES,
        "source_bits": layouts.SOURCE_BITS,
    }


def test_the_queries_tell_policies_apart() -> None:
    both, less = Evaluator(BOTH.plan), Evaluator(LESS.plan)
    reasons = {reference(both, each).reason for each in QUERIES}
    assert reasons >= {Reason.FORWARDED, Reason.DENY_MAPPING, Reason.NO_MAPPING, Reason.PASSED_TO_HOST}
    assert any(reference(both, each) != reference(less, each) for each in QUERIES)
