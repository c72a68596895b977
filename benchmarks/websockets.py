"""WebSockets, client and server by `websocket.c`, which checks every answer.

Messages are counted from when each WebSocket is carried as long ones are: by the kernel, through MarchProxy.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.bed import WEBSOCKET, Bed, compiled
from benchmarks.httpproxies import Reader
from benchmarks.opened import opened
from rig import RigError

OPEN = 32
"""WebSockets on which messages go in turn."""
AT_ONCE = 64
"""Conversations at a time where each is new."""
FAILED = 0.001
"""Share of conversations that may. Whoever loses more is not faster but broken."""


@contextmanager
def in_turn(contender: Reader, seconds: int) -> Iterator[Callable[[], float]]:
    """Open WebSockets; what is called within gives answers a second, one message in flight on each."""
    argv = [*_client("ping", contender.target, seconds), str(OPEN)]
    with opened(contender.bed, argv, seconds) as go_on:
        contender.settle(OPEN)
        yield lambda: per_second(go_on())


def new(bed: Bed, target: str, seconds: int) -> float:
    """Conversations a second: a handshake, a message each way, and the closing handshake."""
    argv = [*_client("new", target, seconds), str(AT_ONCE)]
    return per_second(bed.rig.client.run(argv, timeout=seconds + 20).stdout)


def per_second(printed: str) -> float:
    """From what the client printed; `RigError` where too many failed."""
    ran = json.loads(printed)
    if ran["failed"] > FAILED * ran["count"]:
        raise RigError(f"{ran['failed']} conversations failed, {ran['count']} did not")
    return float(ran["count"] / ran["seconds"])


def _client(mode: str, target: str, seconds: int) -> list[str]:
    return [compiled("websocket"), mode, target, str(WEBSOCKET.number), str(seconds)]
