"""The terminal on many flows: they are flows to the daemon, and everything has its figure."""

import asyncio

import pytest

from benchmarks import tui
from benchmarks.flood import gateway
from rig import Rig

FLOWS = 3000


@pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["clang"])
def test_flows_that_no_packet_made_are_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tui, "WATCHED", 1.0)
    monkeypatch.setattr(tui, "KEYS", 20)
    with Rig() as rig, gateway(rig, "many") as appliance:
        appliance.start()
        tui.fill(appliance, FLOWS)
        rows = appliance.json("flows", "--sort", "bytes", "--limit", "5")
        assert [row["state"] for row in rows] == ["established"] * 5
        assert rows[0]["bytes_sent"] == rows[0]["bytes_received"] > 0
        assert rows[0]["packets_sent"] > rows[4]["packets_sent"]
        figures = asyncio.run(tui.measure(appliance, FLOWS))
    assert len(figures) == 9
    assert all(figure.value >= 0 for figure in figures)
