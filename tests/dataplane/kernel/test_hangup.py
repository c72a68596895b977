"""hangup: a peer whose connection is gone here without a word hears of it."""

import socket
from collections.abc import Iterator

import pytest

from marchproxy.dataplane.kernel.handoff import close_silently
from marchproxy.dataplane.kernel.hangup import hang_up
from marchproxy.dataplane.kernel.tcpsocket import arriving_key
from tests.dataplane.loops import PATIENCE

pytestmark = pytest.mark.requires("root", "ipv6")


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """Goes on listening at the port of the connection that is gone."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as listening:
        yield listening


@pytest.mark.parametrize("side", ["accepted", "connected"])
def test_a_peer_that_says_nothing_hears_that_its_connection_is_over(
    listener: socket.socket, side: str
) -> None:
    connected = socket.create_connection(listener.getsockname()[:2], 5)
    accepted, _ = listener.accept()
    gone, peer = (accepted, connected) if side == "accepted" else (connected, accepted)
    with peer:
        key = arriving_key(gone)
        close_silently(gone)
        hang_up(key)
        peer.settimeout(PATIENCE)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)


def test_where_the_connection_is_still_here_it_stays(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()[:2], 5) as connected:
        accepted, _ = listener.accept()
        with accepted:
            hang_up(arriving_key(accepted))
            accepted.sendall(b"still here")
            assert connected.recv(10, socket.MSG_WAITALL) == b"still here"


def test_nobody_at_the_other_end_is_no_error(listener: socket.socket) -> None:
    connected = socket.create_connection(listener.getsockname()[:2], 5)
    accepted, _ = listener.accept()
    key = arriving_key(accepted)
    close_silently(accepted)
    close_silently(connected)
    hang_up(key)
