"""A flood of new flows, many times faster than events are taken: each event is taken or counted as lost."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.bed import compiled
from rig import Appliance, Rig, wait_for
from rig.traffic import fetch
from tests.dataplane.daemons import UnixConnection

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["nft", "clang"])

FIRST, PORTS = 9000, 8
FLOWS = 150_000
"""At the rate that two processors send, some ten times as fast as 20,000 a second that are taken."""
ANSWERS = """
table inet answers {
  counter got { packets 0 bytes 0 }
  chain input {
    type filter hook input priority 0;
    udp sport 9000-9007 counter name "got" drop
  }
}
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        serving = built.server.popen([compiled("flood"), "serve", "10.2.0.2", str(FIRST), str(PORTS)])
        serving.expect("ready")
        # There is nobody at the ports that the datagrams are from.
        built.client.run(["nft", "-f", "-"], stdin=ANSWERS)
        yield built


@pytest.fixture(scope="module")
def appliance(rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig, name="flood") as built:
        built.cli("init")
        for name, role in (("inside0", "inside"), ("outside0", "outside")):
            built.cli("interface", "add", name, "--role", role)
        built.cli("service", "add", "lan", "--address", "10.1.0.0/24")
        built.cli("service", "add", "far", "--address", "10.2.0.2")
        built.cli("mapping", "add", "out", "--from", "lan", "--to", "far", "--protocol", "udp")
        built.start()
        yield built


class Follower(threading.Thread):
    """Reads the stream of flows that begin; counts what it is told, and what it is told that it missed."""

    def __init__(self, appliance: Appliance) -> None:
        super().__init__(daemon=True)
        self.told = self.missed = 0
        self._connection = UnixConnection(appliance.runtime / "control.sock")
        self._connection.request("GET", "/v1/events?kind=flow-start")
        # The response takes it away from the connection.
        self._socket = self._connection.sock
        self._answer = self._connection.getresponse()
        assert self._answer.readline() == b"\n"

    def run(self) -> None:
        try:
            for line in self._answer:
                event = json.loads(line)
                self.missed += event.get("count", 0) if event["kind"] == "lost" else 0
                self.told += event["kind"] == "flow-start"
        except (OSError, ValueError):
            return

    def end(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self.join(10)
        self._answer.close()


@contextmanager
def following(appliance: Appliance) -> Iterator[Follower]:
    follower = Follower(appliance)
    follower.start()
    try:
        yield follower
    finally:
        follower.end()


def metric(appliance: Appliance, name: str) -> int:
    text = appliance.host.call(fetch, "127.0.0.1", 9090, "/metrics").decode()
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name)))


def answered(rig: Rig) -> int:
    """Answers that the client's host has got: each has begun a flow."""
    shown = json.loads(rig.client.run(["nft", "-j", "list", "counter", "inet", "answers", "got"]).stdout)
    return int(shown["nftables"][-1]["counter"]["packets"])


def flood(rig: Rig) -> None:
    words = ["10.1.0.2", "10.2.0.2", str(FIRST), str(PORTS), str(FLOWS), "0"]
    rig.client.run([compiled("flood"), "ask", *words], timeout=60)


def test_each_is_told_or_counted_as_lost(rig: Rig, appliance: Appliance) -> None:
    with following(appliance) as follower:
        flood(rig)
        made = wait_for(lambda: quiet(rig), "the last answers", timeout=20)
        assert made > FLOWS / 2, "the flood did not get through"

        def accounted() -> bool:
            lost = metric(appliance, "marchproxy_lost_events_total")
            return follower.told + follower.missed + lost == made

        wait_for(accounted, "every event to be told or counted", timeout=60)
        assert metric(appliance, "marchproxy_lost_events_total") > 0, "this was no flood"
        assert follower.told > 0


def quiet(rig: Rig) -> int | None:
    """How many answers there were, once no more come."""
    before = answered(rig)
    threading.Event().wait(0.3)
    return before if before and answered(rig) == before else None
