"""Tunnels handed off at random moments, over links that lose, double and reorder: not one byte goes wrong.

`MARCHPROXY_TUNNELS=10000` makes it as many as it takes to believe it.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from rig import Host, Process, Rig
from rig.lifecycle import BPFFS, remove_tree
from rig.servers import ROOT
from rig.wire import Impairment, bad_link

TUNNELS = int(os.environ.get("MARCHPROXY_TUNNELS", "60"))
PATIENCE = 120 + TUNNELS / 4
"""Seconds for all of them."""
pytestmark = [
    pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "btf"),
    pytest.mark.timeout(PATIENCE + 60),
]

AT_ONCE = 24
MOST = 400_000
BAD = Impairment(loss=0.01, duplication=0.01, reordering=0.05, delay=5)


def start(host: Host, module: str, *words: str | int, ready: str = "", **env: str) -> Process:
    """A program of this folder."""
    argv = [sys.executable, "-m", f"tests.handoff.{module}", *map(str, words)]
    process = host.popen(argv, env={"PYTHONPATH": str(ROOT), **env})
    if ready:
        process.expect(ready, timeout=20)
    return process


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig() as built:
        yield built


def run(rig: Rig, mode: str, listener: str, server: str, *, count: int, most: int = MOST) -> dict[str, Any]:
    """Run that many tunnels through a relay; what the relay reports."""
    pins = BPFFS / f"{rig.name}-relay"
    try:
        env = {"MARCHPROXY_BPFFS": str(pins), "MARCHPROXY_RUNTIME_DIR": str(rig.files)}
        relay = start(rig.middle, "relay", server, mode, most, ready="relaying", **env)
        start(rig.server, "ends", "server", most, ready="serving")
        client = start(rig.client, "ends", "client", listener, 1, count, AT_ONCE, most)
        client.expect("DONE", timeout=PATIENCE)
        # It waits for what a lost reset has left open, up to ten seconds.
        relay.signal(signal.SIGTERM)
        relay.wait(30)
        asked = json.loads(client.output().partition("DONE")[2])
        assert asked["wrong"] == {}
        report: dict[str, Any] = json.loads(relay.output().partition("REPORT")[2].splitlines()[0])
        return report
    finally:
        remove_tree(pins)


LISTENERS = {4: "10.1.0.1", 6: "fd01::1"}
SERVERS = {4: "10.2.0.2", 6: "fd02::2"}


@pytest.mark.parametrize("mode", ["tc", "xdp"])
@pytest.mark.parametrize("version", [4, 6])
def test_bytes_and_closes_are_those_of_a_direct_connection(rig: Rig, mode: str, version: int) -> None:
    with bad_link(rig, rig.client, BAD), bad_link(rig, rig.server, BAD):
        report = run(rig, mode, LISTENERS[version], SERVERS[version], count=TUNNELS)
    check(report)
    assert (report["counters"].get("HANDED_UP", 0) > 0) is (mode == "xdp")


@pytest.mark.parametrize("mode", ["tc", "xdp"])
@pytest.mark.parametrize("version", [4, 6])
def test_the_same_on_links_that_are_fast(rig: Rig, mode: str, version: int) -> None:
    """Where segments are large, or with XDP, which a wire of frames one by one would not show."""
    if mode == "xdp":
        rig.suit_xdp()
    report = run(rig, mode, LISTENERS[version], SERVERS[version], count=TUNNELS, most=10 * MOST)
    check(report)
    assert (report["counters"].get("HANDED_UP", 0) > 0) is (mode == "xdp")


def check(report: dict[str, Any]) -> None:
    """Most of them were handed off, and nothing is left of any."""
    print({key: report[key] for key in ("outcomes", "refusals", "counters")})
    outcomes = report["outcomes"]
    assert outcomes.get("handed-off", 0) + outcomes.get("ended", 0) > outcomes.get("relayed", 0), report
    assert set(report["refusals"]) <= {"REORDERED", "BACKLOG", "CLOSED"}
    assert report["open"] == 0
