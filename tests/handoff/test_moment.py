"""The moment of handoff in the middle of bulk transfers both ways, as both ends see it."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from rig import Rig
from rig.lifecycle import BPFFS, remove_tree
from tests.handoff.bulk import Seen, exchange
from tests.handoff.test_random import LISTENERS, SERVERS, rig, start
from tests.handoff.wire import Impairment, bad_link

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "btf")
__all__ = ["rig"]

SIZE = 8_000_000
MOST = 4_000_000
TIMES = 3
STALL = 0.18
"""Seconds: nine round trips, and less than any retransmission timeout (RFC 6298 has a second, Linux 0.2)."""


@pytest.mark.parametrize("version", [4, 6])
def test_it_costs_no_timeout_and_no_reset(rig: Rig, version: int) -> None:
    pins = BPFFS / f"{rig.name}-relay"
    env = {"MARCHPROXY_BPFFS": str(pins), "MARCHPROXY_RUNTIME_DIR": str(rig.files)}
    with bad_link(rig, rig.client, Impairment(delay=10)):
        try:
            relay = start(rig.middle, "relay", SERVERS[version], "tc", MOST, ready="relaying", **env)
            family = socket.AF_INET6 if version == 6 else socket.AF_INET
            with rig.server.socket(family, socket.SOCK_STREAM) as listener:
                listener.bind((SERVERS[version], 9001))
                listener.listen()
                for seed in range(TIMES):
                    client, server = _both(rig, version, listener, seed)
                    assert (client.sent, server.sent) == (server.received, client.received)
                    assert max(client.longest, server.longest) < STALL
            relay.stop()
            assert f'"handed-off": {TIMES}' in relay.output()
        finally:
            remove_tree(pins)


def _both(rig: Rig, version: int, listener: socket.socket, seed: int) -> tuple[Seen, Seen]:
    with rig.client.socket(listener.family, socket.SOCK_STREAM) as asking, ThreadPoolExecutor() as pool:
        asking.connect((LISTENERS[version], 9000))
        answering, _ = listener.accept()
        with answering:
            answer = pool.submit(exchange, answering, SIZE, 2 * seed)
            return exchange(asking, SIZE, 2 * seed + 1), answer.result()
