"""The sockets tier over the table of policies, with real connections: as the others in test_verdicts.py."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Final

import pytest

from marchproxy.dataplane.proxy.tier import SocketsTier
from marchproxy.model.endpoint import Endpoint, parse_endpoint
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from rig import Rig
from tests.bpf.bed import Bed
from tests.bpf.policies import OWN, QUESTIONS, Question
from tests.dataplane.loops import looped, until

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

ROWS: Final = [
    row for row in QUESTIONS if row.endpoint.address in OWN and row.reason is not Reason.AUTH_MISSING
]
"""Without the ways through and foreign addresses, of which sockets never hear, and what admission serves."""
CLIENTS = ("10.1.0.3/24", "10.1.0.4/24", "fd01::3/64", "fd01::4/64", "fd01::77/64")
SERVERS = ("10.2.0.3/24", "fd02::3/64")
BACKENDS = ("10.2.0.2:8080", "10.2.0.3:8080", "[fd02::2]:8080", "[fd02::3]:8080")
PATIENCE = 20.0


@pytest.fixture(scope="module")
def rig(shared_bed: Bed) -> Iterator[Rig]:
    """With every client and backend of the table. This thread is in the middle host, as the tier is to be."""
    rig = shared_bed.rig
    rig.client.add_address("eth0", *CLIENTS)
    rig.server.add_address("eth0", *SERVERS)
    yield rig
    rig.client.ip(*(f"address delete {address} dev eth0" for address in CLIENTS))
    rig.server.ip(*(f"address delete {address} dev eth0" for address in SERVERS))


class Backend:
    """A server that says where it is, over TCP and UDP."""

    def __init__(self, rig: Rig, place: str) -> None:
        endpoint = parse_endpoint(place)
        self._name = place.encode()
        self._stream = _bound(rig, socket.SOCK_STREAM, endpoint)
        self._datagrams = _bound(rig, socket.SOCK_DGRAM, endpoint)
        self._stream.listen()

    def start(self) -> None:
        """Serve in the running loop."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._stream, self._accept)
        loop.add_reader(self._datagrams, self._answer)

    def stop(self) -> None:
        """Leave the loop."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._stream)
        loop.remove_reader(self._datagrams)

    def close(self) -> None:
        self._stream.close()
        self._datagrams.close()

    def _accept(self) -> None:
        connection, _ = self._stream.accept()
        with connection:
            connection.sendall(self._name)

    def _answer(self) -> None:
        _, client = self._datagrams.recvfrom(64)
        self._datagrams.sendto(self._name, client)


def _bound(rig: Rig, kind: socket.SocketKind, endpoint: Endpoint) -> socket.socket:
    assert endpoint.address is not None
    family = socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6
    found = rig.server.socket(family, kind)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setblocking(False)
    found.bind((str(endpoint.address), endpoint.port))
    return found


async def ask(rig: Rig, row: Question) -> bytes:
    """What the client of a row hears: a backend's name, or nothing. OSError where it is refused."""
    loop, address = asyncio.get_running_loop(), str(row.endpoint.address)
    family = socket.AF_INET if row.query.source.version == 4 else socket.AF_INET6
    kind = socket.SOCK_STREAM if row.transport is Transport.TCP else socket.SOCK_DGRAM
    with closing(rig.client.socket(family, kind)) as client:
        client.setblocking(False)
        client.bind((row.client, 0))
        await loop.sock_connect(client, (address, row.endpoint.port))
        if kind is socket.SOCK_DGRAM:
            await loop.sock_sendall(client, b"?")
        return await asyncio.wait_for(loop.sock_recv(client, 64), PATIENCE)


async def check(rig: Rig, row: Question, tier: SocketsTier) -> None:
    """Ask as the row's client does, and compare what it hears and what the tier counts."""
    try:
        heard = await ask(rig, row)
    except ConnectionError:
        heard = b""
    if row.reason is Reason.FORWARDED:
        assert heard.decode() in row.backends
    else:
        assert heard == b""
    if row.reason is Reason.PASSED_TO_HOST:
        assert tier.counters() == {}, "the host's own, and none of the tier's business"
    else:
        await until(lambda: row.reason in tier.counters(), f"counting {row.reason.name}")
        assert set(tier.counters()) == {row.reason}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_sockets(rig: Rig, row: Question) -> None:
    with ExitStack() as stack:
        backends = [stack.enter_context(closing(Backend(rig, place))) for place in BACKENDS]
        _run(rig, row, backends)


@looped
async def _run(rig: Rig, row: Question, backends: list[Backend]) -> None:
    tier = SocketsTier()
    for backend in backends:
        backend.start()
    try:
        await tier.start(lambda _: None)
        await tier.apply(row.plan(), 1)
        await check(rig, row, tier)
    finally:
        await tier.close()
        for backend in backends:
            backend.stop()
