"""Upstream connections, made from any port or finished for somebody else."""

import asyncio
import socket
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.proxy import connecting
from marchproxy.dataplane.proxy.connecting import connect, connected
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import free_port, says, tcp_server

HERE = ip_address("127.0.0.1")


def soon() -> float:
    return asyncio.get_running_loop().time() + 10


def begun(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with pytest.raises(BlockingIOError):
        sock.connect(("127.0.0.1", port))
    return sock


@looped
async def test_both_ways_lead_there() -> None:
    async with tcp_server(says(b"hello")) as port:
        for opening in (connect(HERE, port, soon()), connected(begun(port), soon())):
            with await opening as upstream:
                assert await asyncio.get_running_loop().sock_recv(upstream, 5) == b"hello"
                assert upstream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@looped
async def test_refusals_are_told_and_close_the_socket() -> None:
    port = free_port()
    with pytest.raises(ConnectionRefusedError):
        await connect(HERE, port, soon())
    sock = begun(port)
    with pytest.raises(ConnectionRefusedError):
        await connected(sock, soon())
    assert sock.fileno() < 0


@looped
async def test_who_stands_already_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "readiness", lambda: pytest.fail("it waits"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = begun(server.getsockname()[1])
        # Loopback shakes hands within connect().
        with await connected(sock, soon()) as upstream:
            assert upstream.getpeername() == server.getsockname()


@looped
async def test_who_stops_waiting_leaves_nothing_open() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as server:
        sock = begun(server.getsockname()[1])
        waiting = asyncio.create_task(connected(sock, soon()))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        sock.close()


@looped
async def test_who_does_not_answer_in_time_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            sock = begun(port)
            with pytest.raises(TimeoutError):
                await connected(sock, asyncio.get_running_loop().time() + 0.05)
            assert sock.fileno() < 0


@looped
async def test_a_socket_that_lost_its_error_does_not_stand() -> None:
    """Who asks first is told why; whoever asks then hears of no error."""
    sock = begun(free_port())
    await asyncio.sleep(0.01)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    with pytest.raises(ConnectionAbortedError):
        await connected(sock, soon())
    assert sock.fileno() < 0


@looped
async def test_a_loop_that_wakes_for_nothing_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen with uvloop and hosts that do not answer, about once in a hundred times."""
    wait, woken = connecting._until_writable, 0

    async def early(sock: socket.socket, until: float) -> None:
        nonlocal woken
        woken += 1
        if woken > 3:
            await wait(sock, until)

    monkeypatch.setattr(connecting, "_until_writable", early)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        # One fits; the SYN of the next is not answered while that one waits.
        with socket.create_connection(("127.0.0.1", port)):
            opening = asyncio.ensure_future(connected(begun(port), soon()))
            await until(lambda: woken > 3)
            assert not opening.done()
            server.accept()[0].close()
            with await opening as upstream:
                assert upstream.getpeername() == ("127.0.0.1", port)
