"""tcpsocket: what the kernel tells of a socket is what happened on its connection."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy import bpf
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.tcpsocket import (
    Blocker,
    Option,
    TcpSocket,
    TcpSockets,
    TcpState,
    ask_peer,
)
from tests.dataplane.kernel.support import eventually

pytestmark = pytest.mark.requires("root", "bpf", "btf", "netns", "ipv6")


@pytest.fixture(scope="module")
def sockets() -> Iterator[TcpSockets]:
    with BpfObject.load(Path(bpf.OBJECTS / "handoff.bpf.o")) as loaded:
        yield TcpSockets(loaded.programs["marchproxy_socket"])


class Pair:
    """Both ends of a connection over the loopback."""

    def __init__(self, sockets: TcpSockets, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.create_server((address, 0), family=family) as listener:
            self.near = socket.create_connection(listener.getsockname()[:2])
            self.far, _ = listener.accept()
        self._sockets = sockets

    def ask(self, sock: socket.socket | None = None) -> TcpSocket:
        told = self._sockets.ask(sock or self.near)
        assert told is not None
        return told

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest, namespace: None, sockets: TcpSockets) -> Iterator[Pair]:
    made = Pair(sockets, request.param)
    yield made
    made.close()


def test_a_new_connection(pair: Pair) -> None:
    near, far = pair.ask(), pair.ask(pair.far)
    assert near.state == far.state == TcpState.ESTABLISHED
    assert (near.unread, near.unacknowledged, near.blockers) == (0, 0, Blocker(0))
    assert (near.written, near.received) == (far.received, far.written)
    assert near.options & (Option.TIMESTAMPS | Option.SACK) == Option.TIMESTAMPS | Option.SACK
    assert (near.own_shift, near.peer_shift) == (far.peer_shift, far.own_shift)
    # Linux sends no more than half of what the peer has room for at once, which is less here.
    assert 32_000 < far.segment <= near.advertised
    assert near.advertised > 65_000
    assert near.ifindex == socket.if_nametoindex("lo")


def test_bytes_are_counted_where_they_wait(pair: Pair) -> None:
    before = pair.ask(pair.far)
    pair.near.sendall(b"12345")
    assert eventually(lambda: pair.ask().unacknowledged == 0)
    after = pair.ask(pair.far)
    assert (after.unread, after.bytes_in - before.bytes_in) == (5, 5)
    assert after.end_read == before.end_read
    assert pair.far.recv(3) == b"123"
    assert pair.ask(pair.far).unread == 2
    assert pair.ask(pair.far).end_read == (before.end_read + 3) & 0xFFFFFFFF
    assert pair.ask().end_written == (before.end_read + 5) & 0xFFFFFFFF


def test_a_fin_is_no_byte_whether_it_was_read_or_not(pair: Pair) -> None:
    end = (pair.ask().end_written + 3) & 0xFFFFFFFF
    pair.near.sendall(b"end")
    pair.near.shutdown(socket.SHUT_WR)
    assert eventually(lambda: pair.ask().state == TcpState.FIN_WAIT2)
    assert (pair.ask().fin_sent, pair.ask().fin_received) == (True, False)
    assert pair.ask().end_written == end
    far = pair.ask(pair.far)
    assert (far.fin_received, far.unread) == (True, 3)
    assert pair.far.recv(100) == b"end"
    assert (pair.ask(pair.far).unread, pair.ask(pair.far).end_read) == (0, end)
    assert pair.far.recv(100) == b""
    assert (pair.ask(pair.far).unread, pair.ask(pair.far).end_read) == (0, end)


def test_the_peers_clock_is_what_the_peer_says(pair: Pair) -> None:
    pair.near.sendall(b"tick")
    assert pair.far.recv(4) == b"tick"
    heard = pair.ask(pair.far).peer_timestamp
    # The lowest bit of our clock is not told.
    assert (pair.ask().clock + 1 - heard) & 0xFFFFFFFF < 5000


def test_urgent_data_is_told(pair: Pair) -> None:
    pair.near.send(b"!", socket.MSG_OOB)
    assert eventually(lambda: Blocker.URGENT in pair.ask(pair.far).blockers)


def test_a_socket_that_is_gone_has_nothing_to_tell(pair: Pair, sockets: TcpSockets) -> None:
    pair.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    pair.far.close()
    assert eventually(lambda: sockets.ask(pair.near) is None)


def test_who_was_asked_is_in_no_listeners_way(pair: Pair) -> None:
    port = pair.far.getsockname()[1]
    assert pair.far.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    segments = pair.ask().segments_in
    ask_peer(pair.near)
    eventually(lambda: pair.ask().segments_in > segments)
    ask_peer(pair.far)
    with socket.create_server((pair.far.getsockname()[0], port), family=pair.far.family) as later:
        assert later.getsockname()[1] == port
