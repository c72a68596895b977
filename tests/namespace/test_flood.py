"""A flood of new flows, many times faster than events are taken: each event is taken or counted as lost."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.flood import Flood, gateway
from rig import Appliance, Rig, wait_for
from rig.traffic import fetch
from tests.dataplane.daemons import UnixConnection

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["nft", "clang"])

FLOWS = 150_000
"""At the rate that two processors send, some ten times as fast as 20,000 a second that are taken."""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        yield built


@pytest.fixture(scope="module")
def appliance(rig: Rig) -> Iterator[Appliance]:
    with gateway(rig, "flood") as built:
        built.start()
        yield built


class Follower(threading.Thread):
    """Reads the stream of flows that begin and of refusals; counts what it is told of, and what it missed."""

    def __init__(self, appliance: Appliance) -> None:
        super().__init__(daemon=True)
        self.told = self.missed = 0
        self._connection = UnixConnection(appliance.runtime / "control.sock")
        self._connection.request("GET", "/v1/events?kind=flow-start,denied")
        # The response takes it away from the connection.
        self._socket = self._connection.sock
        self._answer = self._connection.getresponse()
        assert self._answer.readline() == b"\n"

    def run(self) -> None:
        try:
            for line in self._answer:
                event = json.loads(line)
                if event["kind"] == "lost":
                    self.missed += event["count"]
                else:
                    self.told += event["count"]
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


def test_each_is_told_or_counted_as_lost(rig: Rig, appliance: Appliance) -> None:
    with following(appliance) as follower:
        made = Flood(rig).ask(FLOWS).made
        assert made > FLOWS / 2, "the flood did not get through"

        def accounted() -> bool:
            told = follower.told + follower.missed + metric(appliance, "marchproxy_lost_events_total")
            # An answer whose flow was pushed out by newer ones is refused, which may be an event as well.
            refused = metric(appliance, "marchproxy_denied_packets_total")
            return made <= told <= made + refused

        wait_for(accounted, "every event to be told or counted", timeout=60)
        assert metric(appliance, "marchproxy_lost_events_total") > 0, "this was no flood"
        assert follower.told > 0
