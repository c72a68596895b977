"""What traffic loses while somebody looks: somebody does, and each figure has its fellow."""

import pytest

from benchmarks import watched
from benchmarks.bed import Bed
from benchmarks.flood import gateway
from benchmarks.tui import fill
from benchmarks.watched import KINDS, Figure, Round
from rig import Rig

FLOWS = 3000


@pytest.mark.requires(
    "root", "netns", "veth", "bpf", "bpffs", commands=["clang", "iperf3", "nginx", "bpftool"]
)
def test_the_terminal_shows_the_flows_while_traffic_is_measured() -> None:
    with Rig() as rig, gateway(rig, "watched") as appliance:
        appliance.start()
        fill(appliance, FLOWS)
        with watched.watching(appliance, FLOWS) as terminal:
            assert "10.1.0." in terminal.text()
        found = list(watched.rounds(Bed(rig), appliance, FLOWS, 2, 1))
    assert [each.kind for each in found] == [*KINDS, *KINDS]
    for each in found:
        for figure in (each.alone, each.watched):
            assert figure.value > 0
            assert figure.packet > 0
        assert each.terminal > 0


def test_medians_of_ratios() -> None:
    bulk, pings = KINDS
    found = [
        Round(bulk, Figure(alone * 1e9, 300), Figure(alone * 0.99e9, 330), 0.01, 0.1)
        for alone in (10, 30, 20)
    ]
    text = watched.markdown([*found, *[Round(pings, Figure(1, 1), Figure(1, 1), 0, 0)] * 3], 15)
    lines = text.splitlines()
    assert "| 20.00 (10.00-30.00) | 19.80 (9.90-29.70) | 0.990 (0.990-0.990) |" in lines[2]
    assert "| 300 (300-300) | 330 (330-330) | 1.100 (1.100-1.100) |" in lines[3]
    assert "|  | 1.0 and 10.0 |  |" in lines[4]
    assert "3 rounds of 15 s for each figure" in lines[-1]
    assert all(line.count("|") == len(watched.TITLES) + 1 for line in lines[:8])
