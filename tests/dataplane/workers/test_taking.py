"""pool: tunnels that workers offer. The kernel is played here, and the worker."""

import os
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest

from marchproxy.dataplane.admission.handover import Handover
from marchproxy.dataplane.admission.ripe import Ripe
from marchproxy.dataplane.credentials.keeper import CredentialKeeper
from marchproxy.dataplane.credentials.parts import BookParts
from marchproxy.dataplane.kernel.joining import HandoffRefusal
from marchproxy.dataplane.kernel.tunnels import Tunnel as Remembered
from marchproxy.dataplane.logs import LogFormat
from marchproxy.dataplane.names.found import Found
from marchproxy.dataplane.workers import messages
from marchproxy.dataplane.workers.pool import WorkerPool, _Place
from marchproxy.policy.plan import Plan
from tests.certificates import keeper
from tests.dataplane.loops import looped

RIPE = Ripe(7, "m", 1, 0, Remembered())


class Kernel:
    """Takes everything, or refuses."""

    def __init__(self, refusal: HandoffRefusal | None) -> None:
        self.refusal = refusal
        self.taken: list[tuple[socket.socket, socket.socket]] = []
        self.ended: list[int] = []

    def when_numbered(self, mapping: str, then: Callable[[], None]) -> None:
        assert mapping == "m"
        then()

    def take(self, client: socket.socket, upstream: socket.socket, ripe: Ripe) -> HandoffRefusal | None:
        if self.refusal is None:
            self.taken.append((client, upstream))
        return self.refusal

    async def connect(self, address: object, port: int, until: float | None) -> socket.socket:
        raise AssertionError(address, port)

    def end_where(self, judge: object) -> None:
        assert judge

    def end_untold(self, ids: frozenset[int]) -> None:
        self.ended += ids


class Asker:
    """A worker's place, and what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def say(self, message: object) -> None:
        self.told.append(message)


async def nowhere(name: str) -> Found:
    raise AssertionError(name)


class NoCredentials:
    """Stands in for a keeper."""

    parts = BookParts()


def pool(kernel: Kernel | None) -> WorkerPool:
    """One that has its second plan, of the same revision as the first."""
    credentials = cast(CredentialKeeper, NoCredentials())
    made = WorkerPool(0, nowhere, credentials, keeper(), cast("Handover | None", kernel))
    for _ in range(2):
        made.adopt(Plan(), 5, frozenset(), {})
    return made


@pytest.mark.parametrize(
    ("kernel", "edition", "answer"),
    [
        (Kernel(None), 2, None),
        (Kernel(None), 1, True),
        (Kernel(HandoffRefusal.BACKLOG), 2, True),
        (Kernel(HandoffRefusal.SACK), 2, False),
        (None, 2, False),
    ],
)
@looped
async def test_a_tunnel_is_taken_if_the_plan_in_force_allowed_it(
    kernel: Kernel | None, edition: int, answer: bool | None
) -> None:
    asker, pairs = Asker(), [socket.socketpair() for _ in range(2)]
    offered = messages.Offered(5, RIPE, edition)
    pool(kernel).take(cast(_Place, asker), offered, [os.dup(ours.fileno()) for ours, _ in pairs])
    assert asker.told == [messages.Answer(5, answer)]
    for ours, theirs in pairs:
        ours.close()
        theirs.setblocking(False)
        if answer is not None:
            assert theirs.recv(1) == b"", "nobody else has it"
        theirs.close()
    assert bool(kernel and kernel.taken) is (answer is None)
    for sock in (sock for each in (kernel.taken if kernel else []) for sock in each):
        sock.close()


@looped
async def test_what_has_ended_in_its_worker_is_ended_in_the_kernel() -> None:
    kernel = Kernel(None)
    _Place(pool(kernel), 0, 0, LogFormat.CONSOLE)._heard(messages.Cut(frozenset({7})), [])
    assert kernel.ended == [7]
