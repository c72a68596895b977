"""A client's socket while it is talked to."""

import asyncio
import socket

import pytest

from marchproxy.dataplane.admission.wire import Wire
from tests.dataplane.loops import looped


def pair() -> tuple[Wire, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return Wire(ours), theirs


@looped
async def test_bytes_their_end_and_time() -> None:
    wire, peer = pair()
    now = asyncio.get_running_loop().time
    assert await wire.receive(now() + 0.01) is None
    peer.sendall(b"hello")
    assert await wire.peek(now() + 1) == b"hello"
    assert await wire.receive(None) == b"hello"
    assert await wire.peek(now() + 0.01) == b""
    peer.close()
    assert await wire.receive(None) == b""
    wire.reset()


@looped
async def test_who_does_not_take_what_it_is_told_is_given_up() -> None:
    wire, peer = pair()
    with pytest.raises(TimeoutError):
        await wire.send(bytes(4 << 20), 0.05)
    wire.reset()
    peer.close()


@looped
async def test_a_close_waits_for_what_was_told() -> None:
    wire, peer = pair()
    peer.sendall(b"unread")
    await wire.send(b"refused", 1.0)
    closing = asyncio.create_task(wire.close())
    await asyncio.sleep(0)
    assert peer.recv(100) == b"refused"
    assert peer.recv(100) == b""
    peer.close()
    await closing
    assert wire.socket.fileno() < 0
