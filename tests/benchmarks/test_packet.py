"""What one packet costs: the table, what is dearer than the baseline, and that ways are what they say."""

import json
from pathlib import Path

import pytest

from benchmarks.packet import (
    BASELINE,
    METHODS,
    REPEATED,
    TIERS,
    Cost,
    Costs,
    goals,
    main,
    markdown,
    measure,
    ratios,
    regressions,
    repeated,
    show,
)
from benchmarks.packetpaths import paths, prepare
from marchproxy.model.reason import Reason
from rig import Rig
from tests.bpf.bed import Bed, inside


def cost(*own: float) -> Cost:
    return Cost(tuple(50 + each for each in own), (50.0,) * len(own))


COSTS: Costs = {
    ("established flow, IPv4", "tc", "single"): cost(200, 210.4, 900),
    ("established flow, IPv4", "tc", "live"): cost(225),
    ("established flow, IPv4", "xdp", "single"): cost(120),
    ("established flow, IPv4", "xdp", "live"): cost(132),
}


def test_the_table_has_a_row_for_each_path_and_a_column_for_each_method() -> None:
    facts = {"date": "2026-01-01", "kernel": "6.18", "processor": "2 x EPYC"}
    assert markdown(COSTS, facts).splitlines() == [
        "| nanoseconds a packet | TC, single | TC, live | XDP, single | XDP, live |",
        "|---|---|---|---|---|",
        "| established flow, IPv4 | 210 | 225 | 120 | 132 |",
        "",
        "2026-01-01, kernel 6.18, 2 x EPYC.",
    ]
    assert show(COSTS).row_count == 1


def test_ratios_are_of_calls_and_the_best_round() -> None:
    assert ratios(COSTS) == {"established flow, IPv4, single": {"tc": 5.0, "xdp": 3.4}}


def test_what_is_half_as_dear_again_or_unknown_is_told() -> None:
    kept = {"one": {"tc": 4.0, "xdp": 4.0}, "gone": {"tc": 1.0}}
    found = {"one": {"tc": 5.9, "xdp": 6.1}, "two": {"tc": 1.0}}
    assert list(regressions(found, kept)) == [
        "one, XDP: 6.1 times nothing, 4.0 in the baseline",
        "two, TC: the baseline does not know it; write it with --baseline",
    ]


def test_the_baseline_knows_every_way() -> None:
    kept = json.loads(BASELINE.read_text())
    circular = {f"{path.title}, repeated" for path in paths(1) if path.circular}
    assert set(kept) == {f"{path.title}, single" for path in paths(1)} | circular
    assert all(set(tiers) == set(TIERS) and min(tiers.values()) > 1 for tiers in kept.values())


@pytest.mark.parametrize(("kept", "code"), [(9.0, 0), (1.0, 1)])
def test_a_check_fails_where_something_is_dearer(
    kept: float,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(json.dumps({"established flow, IPv4, single": {"tc": kept, "xdp": 9.0}}))
    monkeypatch.setattr("benchmarks.packet.BASELINE", file)
    monkeypatch.setattr("benchmarks.packet.measured", lambda *_: COSTS)
    assert main(["--check"]) == code
    assert ("dearer: established flow, IPv4, single, TC" in capsys.readouterr().err) == bool(code)


@pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")
def test_every_path_ends_as_it_says_where_it_says_and_has_a_price() -> None:
    # What XDP only hands up would be measured as cheap.
    handed_up = {"new flow", "first packet at a gateway", "no listener"}
    handed_up |= {"left to the host", "to a connection of the host"}
    with Rig() as rig, inside(rig.middle):
        bed = Bed(rig)
        for path in paths(20):
            for tier in TIERS:
                prepare(bed, tier, path)
                bed.counters.difference()
                outcome = bed.send(tier, path.frames[0])
                assert outcome.reason is path.reason, (path.title, tier)
                assert outcome.handed_up == (tier == "xdp" and path.title in handed_up), path.title
        for method in METHODS:
            spent = measure(bed, "tc", next(paths(20)), method, 20, 1)
            assert min(*spent.full, *spent.bare) > 0, method
        _all_passes_go_on(bed)


def _all_passes_go_on(bed: Bed) -> None:
    """Repeated runs are of established flows, every one."""
    for path in (each for each in paths(1) if each.circular):
        for tier in TIERS:
            prepare(bed, tier, path)
            bed.counters.difference()
            repeated(bed, tier, bed.programs[tier], [path.frames[0]])
            (passed,) = bed.counters.difference().items()
            assert passed == (Reason.FORWARDED, (REPEATED, REPEATED * (len(path.frames[0]) - 14))), path.title


def test_goals_are_told_by_tier_and_method_and_what_was_not_measured_is_a_dash() -> None:
    costs = {**COSTS, ("denied", "tc", "single"): cost(456)}
    assert next(iter(goals(costs))) == "TC, single: 210 ns, goal 150"
    assert markdown(costs, {"date": "", "kernel": "", "processor": ""}).splitlines()[3] == (
        "| denied | 456 | - | - | - |"
    )
