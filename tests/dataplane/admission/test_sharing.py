"""sharing: which listeners share a socket, and what admission opens when they do."""

import socket
from collections.abc import Sequence
from typing import Any

import pytest

from marchproxy.dataplane.admission.sharing import LEAST, runs
from marchproxy.model.errors import Conflict, MarchproxyError
from marchproxy.policy.plan import Listener, Plan
from tests.dataplane.admission.desk import TOKEN, Desk, desk
from tests.dataplane.loops import looped
from tests.dataplane.plans import listener, rule
from tests.dataplane.proxy.peers import dial, echo, tcp_server
from tests.policy import build
from tests.policy.build import mapping, service

FIRST = 29000
"""Below the ports that the kernel gives out."""
WHOLE = range(FIRST, FIRST + 500)


class Recorder:
    """Notes what it is told to do."""

    def __init__(self, *, able: bool = True, refusal: str = "") -> None:
        self.able = able
        self.refusal = refusal
        self.served: dict[int, list[int]] = {}
        """Ports that sockets are bound to, and those that they receive for."""

    def ready(self) -> bool:
        return self.able

    def settle(self, served: Sequence[tuple[socket.socket, Sequence[Listener]]]) -> None:
        if self.refusal:
            raise MarchproxyError(self.refusal)
        self.served = {sock.getsockname()[1]: [each.port for each in items] for sock, items in served}

    def close(self) -> None:
        self.served = {}


def plan(ports: range, backend: int = 1, address: str = "127.0.0.1", **fields: Any) -> Plan:
    vault = service("vault", "127.0.0.3", auth="token", port=backend)
    listen = f"{address}:{ports[0]}-{ports[-1]}"
    return build.plan(service("lan", "127.0.0.1"), vault, mapping("keys", "lan", "vault", listen, **fields))


def sockets(at: Desk) -> set[int]:
    """Ports that admission has sockets at."""
    return {key.port for key in at.admission._open}


def test_runs_are_of_one_address_and_long_enough() -> None:
    long, short = range(100, 100 + LEAST), range(300, 300 + LEAST - 1)
    first = [listener(port, rule()) for port in long]
    other = [listener(port, rule(), address="127.0.0.2") for port in long]
    few = [listener(port, rule()) for port in short]
    assert runs([*few, *reversed(other), *first]) == [tuple(first), tuple(other)]


def test_a_gap_ends_a_run() -> None:
    ports = [*range(100, 100 + LEAST), *range(101 + LEAST, 101 + 2 * LEAST)]
    found = runs(listener(port, rule()) for port in ports)
    assert [[item.port for item in run] for run in found] == [ports[:LEAST], ports[LEAST:]]


@looped
async def test_a_range_is_one_socket() -> None:
    sharing = Recorder()
    async with desk(sharing=sharing) as at, tcp_server(echo, "127.0.0.3") as backend:
        at.apply(plan(WHOLE, backend))
        assert sockets(at) == {FIRST}
        assert sharing.served == {FIRST: list(WHOLE)}
        async with dial(FIRST) as (reader, writer):
            writer.write(f"MARCHPROXY/1 {TOKEN}\nhello".encode())
            assert await reader.readexactly(8) == b"OK\nhello"


@looped
async def test_every_address_of_both_families_is_two() -> None:
    sharing = Recorder()
    async with desk(sharing=sharing) as at:
        vault = service("vault", "127.0.0.3", "::1", auth="token", port=1)
        listen = f"*:{WHOLE[0]}-{WHOLE[-1]}"
        at.apply(build.plan(service("lan", "127.0.0.1"), vault, mapping("keys", "lan", "vault", listen)))
        assert len(at.admission._open) == 2


@looped
async def test_few_ports_have_a_socket_each() -> None:
    sharing = Recorder()
    async with desk(sharing=sharing) as at:
        at.apply(plan(WHOLE[: LEAST - 1]))
        assert sockets(at) == set(WHOLE[: LEAST - 1])
        assert sharing.served == {}


@pytest.mark.parametrize("sharing", [None, Recorder(able=False)])
@looped
async def test_without_the_kernel_there_is_a_socket_for_each_port(sharing: Recorder | None) -> None:
    async with desk(sharing=sharing) as at:
        at.apply(plan(WHOLE[:50]))
        assert sockets(at) == set(WHOLE[:50])


@looped
async def test_a_range_that_is_cut_short_keeps_its_socket() -> None:
    sharing = Recorder()
    async with desk(sharing=sharing) as at:
        at.apply(plan(WHOLE))
        before = list(at.admission._open.values())
        at.apply(plan(WHOLE[:100]), 3)
        assert list(at.admission._open.values()) == before
        assert sharing.served == {FIRST: list(WHOLE[:100])}
        at.apply(plan(WHOLE[100:200]), 4)
        assert sharing.served == {FIRST + 100: list(WHOLE[100:200])}
        at.apply(Plan(), 5)
        assert sharing.served == {}
        assert sockets(at) == set()


@looped
async def test_a_port_of_another_program_is_told_and_nothing_has_changed() -> None:
    sharing = Recorder()
    async with desk(sharing=sharing) as at:
        at.apply(plan(WHOLE[:100]))
        with socket.create_server(("127.0.0.1", FIRST + 150)):
            with pytest.raises(Conflict, match=f"127.0.0.1:{FIRST + 150}/tcp: another program"):
                at.apply(plan(WHOLE), 3)
            assert sharing.served == {FIRST: list(WHOLE[:100])}
        at.apply(plan(WHOLE), 4)
        assert sharing.served == {FIRST: list(WHOLE)}


@looped
async def test_what_the_kernel_refuses_is_a_problem() -> None:
    sharing = Recorder(refusal="no room")
    async with desk(sharing=sharing) as at:
        at.apply(plan(WHOLE))
        assert "listeners that share a socket: no room" in at.admission.problems()
        sharing.refusal = ""
        at.apply(plan(WHOLE), 3)
        assert at.admission.problems() == []


@looped
async def test_more_sockets_than_there_is_room_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 1024))
    async with desk(sharing=Recorder(able=False)) as at:
        with pytest.raises(MarchproxyError, match="500 listeners want a socket each"):
            at.apply(plan(WHOLE))
