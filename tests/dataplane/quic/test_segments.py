"""Datagrams that go out together."""

import errno
import socket
from ipaddress import ip_address
from typing import Any

import pytest

from marchproxy.dataplane.quic.connection import Path
from marchproxy.dataplane.quic.segments import Segments, runs
from tests.dataplane.loops import PATIENCE

HERE = ip_address("127.0.0.1")
ONE, TWO = Path(("127.0.0.1", 1), HERE), Path(("127.0.0.1", 2), HERE)


def sizes(*said: tuple[int, Path]) -> list[tuple[Path, int, list[int]]]:
    return [(path, size, list(map(len, run))) for path, size, run in runs([(bytes(n), to) for n, to in said])]


def test_what_goes_together() -> None:
    assert sizes() == []
    assert sizes((9, ONE), (9, ONE), (3, ONE)) == [(ONE, 9, [9, 9, 3])]
    # A shorter one is the last, a longer one does not fit, another client is another call.
    assert sizes((9, ONE), (3, ONE), (9, ONE)) == [(ONE, 9, [9, 3]), (ONE, 9, [9])]
    assert sizes((3, ONE), (9, ONE)) == [(ONE, 3, [3]), (ONE, 9, [9])]
    assert sizes((9, ONE), (9, TWO)) == [(ONE, 9, [9]), (TWO, 9, [9])]
    assert [len(run) for *_, run in sizes(*[(9, ONE)] * 70)] == [32, 32, 6]


@pytest.mark.parametrize("refuses", [False, True])
def test_all_of_them_arrive_one_by_one(refuses: bool) -> None:
    """Also where a device does not cut them."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(PATIENCE)
        path = Path(receiver.getsockname(), HERE)
        said = [bytes([index]) * 1000 for index in range(40)] + [b"end"]
        with _Refusing(fileno=sender.detach()) if refuses else sender as used:
            Segments(used, wildcard=False).send([(each, path) for each in said])
        assert [receiver.recv(2000) for _ in said] == said


class _Refusing(socket.socket):
    def sendmsg(self, buffers: Any, ancillary: Any = (), flags: int = 0, address: Any = None) -> int:
        if ancillary:
            raise OSError(errno.EIO, "no")
        return super().sendmsg(buffers, ancillary, flags, address)
