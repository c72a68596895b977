"""What one packet costs: the table, and that paths are what they say."""

import pytest

from benchmarks.packet import Path, markdown, measure, paths, show
from marchproxy.model.reason import Reason
from rig import Rig
from tests.bpf.bed import Bed, Tier, inside

COSTS: dict[tuple[str, Tier, str], float] = {
    ("established flow, IPv4", "tc", "single"): 210.4,
    ("established flow, IPv4", "tc", "live"): 225,
    ("established flow, IPv4", "xdp", "single"): 120,
    ("established flow, IPv4", "xdp", "live"): 132,
}
REASONS = {
    "established flow, IPv4": Reason.FORWARDED,
    "established flow, IPv6": Reason.FORWARDED,
    "new flow": Reason.FORWARDED,
    "denied": Reason.NO_MAPPING,
    "left to the host": Reason.PASSED_TO_HOST,
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


@pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")
def test_every_path_ends_as_it_says_and_has_a_price() -> None:
    with Rig() as rig, inside(rig.middle):
        bed = Bed(rig)
        for path in paths(20):
            price, reason = _one(bed, path)
            assert price > 0, path.title
            assert reason is REASONS[path.title]


def _one(bed: Bed, path: Path) -> tuple[float, Reason]:
    counters = bed.counters
    counters.difference()
    price = measure(bed, "tc", path, "single", 20, 1)
    spent = counters.difference()
    return price, max(spent, key=lambda reason: spent[reason][0])
