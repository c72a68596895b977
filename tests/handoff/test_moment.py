"""The moment of handoff in the middle of bulk transfers both ways, as the ends and their links see it."""

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rig import Rig
from rig.lifecycle import BPFFS, remove_tree
from rig.wire import Impairment, bad_link
from tests.handoff.bulk import Seen, exchange
from tests.handoff.eavesdropper import Heard, listen_at
from tests.handoff.test_random import LISTENERS, SERVERS, rig, start

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "btf")
__all__ = ["rig"]

SIZE = 8_000_000
MOST = 4_000_000
TIMES = 3
ROUND_TRIP = 20
"""Milliseconds, of the client's link."""


@pytest.mark.parametrize("version", [4, 6])
def test_nobody_is_reset_or_told_of_an_end(rig: Rig, version: int) -> None:
    """How long nothing new came in meanwhile is shown (`pytest -rP`), but is no verdict: a machine that has
    other things to do makes everybody wait.
    """
    pins = BPFFS / f"{rig.name}-relay"
    env = {"MARCHPROXY_BPFFS": str(pins), "MARCHPROXY_RUNTIME_DIR": str(rig.files)}
    with bad_link(rig, rig.client, Impairment(delay=ROUND_TRIP / 2)):
        try:
            relay = start(rig.middle, "relay", SERVERS[version], "tc", MOST, ready="relaying", **env)
            family = socket.AF_INET6 if version == 6 else socket.AF_INET
            with rig.server.socket(family, socket.SOCK_STREAM) as listener:
                listener.bind((SERVERS[version], 9001))
                listener.listen()
                with listen_at(rig.client) as at_client, listen_at(rig.server) as at_server:
                    for seed in range(TIMES):
                        client, server = _both(rig, version, listener, seed)
                        assert (client.sent, server.sent) == (server.received, client.received)
                    # For what an end would still be told after its last byte.
                    time.sleep(0.3)
            relay.signal(signal.SIGTERM)
            relay.wait(30)
        finally:
            remove_tree(pins)
    report = json.loads(relay.output().partition("REPORT")[2].splitlines()[0])
    assert report["outcomes"] == {"handed-off": TIMES}
    for heard in (at_client, at_server):
        # Our sockets have gone without a word: each direction ends once, by its own end.
        assert heard.resets == []
        assert len(heard.ends) == 2 * TIMES
    print("longest waits of the client, in ms:", waits_around(at_client, report["moments"]))


def waits_around(heard: Heard, moments: list[tuple[int, float, float]]) -> list[float]:
    """Of each handoff: how long nothing new came to the client, from its beginning on and a little beyond."""
    found = {ports[1]: waits for ports, waits in heard.waits().items()}
    return [
        round(
            1000 * max(end - begin for begin, end in found[port] if end >= began and begin <= ended + 0.05), 1
        )
        for port, began, ended in moments
    ]


def _both(rig: Rig, version: int, listener: socket.socket, seed: int) -> tuple[Seen, Seen]:
    with rig.client.socket(listener.family, socket.SOCK_STREAM) as asking, ThreadPoolExecutor() as pool:
        asking.connect((LISTENERS[version], 9000))
        answering, _ = listener.accept()
        with answering:
            answer = pool.submit(exchange, answering, SIZE, 2 * seed)
            return exchange(asking, SIZE, 2 * seed + 1), answer.result()
