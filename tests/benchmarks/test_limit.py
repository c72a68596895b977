"""What limits cost: the table, and that the packets are limited as it says."""

import pytest

from benchmarks.limit import DATAGRAM, POLICIES, cost, rows
from marchproxy.model.reason import Reason
from rig import Rig
from tests.bpf.bed import Bed, Tier, inside


def test_the_table_shows_what_limits_add() -> None:
    costs: dict[str, dict[Tier, float]] = {
        "no limit": {"tc": 250.4, "xdp": 170},
        "total": {"tc": 300, "xdp": 169},
    }
    assert list(rows(costs)) == [
        ("no limit", "250 (+0)", "170 (+0)"),
        ("total", "300 (+50)", "169 (-1)"),
    ]


@pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")
def test_every_policy_does_as_it_says_and_has_a_price() -> None:
    with Rig() as rig, inside(rig.middle):
        bed = Bed(rig)
        for title, limits in POLICIES.items():
            assert cost(bed, "tc", limits, 5) > 0
            limited = bed.send("tc", DATAGRAM).reason is Reason.RATE_LIMITED
            assert limited == ("beyond" in title), title
