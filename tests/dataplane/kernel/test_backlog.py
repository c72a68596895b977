"""backlog: queues of sockets are kept small, and given back."""

import socket

import pytest

from marchproxy.dataplane.kernel import backlog
from marchproxy.dataplane.kernel.backlog import SO_BUF_LOCK, UNREAD, lift_limits, limit_backlog


def test_queues_are_kept_small_until_it_is_decided() -> None:
    """A socket that somebody gave a buffer to has it for ever, unless the kernel gets it back."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with socket.create_connection(listening.getsockname()) as sock:
            limit_backlog(sock)
            # The kernel counts its own bookkeeping as much again.
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * UNREAD
            assert sock.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK) == 2
            lift_limits(sock)
            assert sock.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK) == 0
        lift_limits(sock)


def test_where_a_buffer_cannot_be_given_back_it_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "SO_BUF_LOCK", 9999)
    with socket.socket() as sock:
        before = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        limit_backlog(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == before
        lift_limits(sock)
