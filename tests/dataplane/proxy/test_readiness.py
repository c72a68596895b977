"""Who waits for a socket is called when it is ready, and by nobody else's events."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from marchproxy.dataplane.proxy.readiness import TICK, readiness
from tests.dataplane.loops import looped, until


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


def soon(seconds: float = 10.0) -> float:
    return asyncio.get_running_loop().time() + seconds


@looped
async def test_a_loop_has_one_and_another_loop_another() -> None:
    first = readiness()
    assert readiness() is first
    assert await asyncio.to_thread(asyncio.run, _own()) is not first


async def _own() -> object:
    return readiness()


@looped
async def test_readers_are_called_until_all_is_read_and_at_the_end() -> None:
    with pair() as (one, other):
        read: list[bytes] = []
        readiness().add_reader(one, lambda: read.append(one.recv(1)))
        other.send(b"ab")
        await until(lambda: read == [b"a", b"b"])
        other.close()
        await until(lambda: read[-1] == b"")
        readiness().remove_reader(one)
        count = len(read)
        await asyncio.sleep(0.01)
        assert len(read) == count


@looped
async def test_reader_and_writer_of_one_socket_come_and_go_by_themselves() -> None:
    with pair() as (one, other):
        read: list[bytes] = []
        written = 0

        def writable() -> None:
            nonlocal written
            written += 1

        ready = readiness()
        ready.add_reader(one, lambda: read.append(one.recv(9)))
        ready.add_writer(one, writable)
        await until(lambda: written > 0)
        ready.remove_writer(one)
        ready.remove_writer(one)
        count = written
        other.send(b"here")
        await until(lambda: read == [b"here"])
        assert written == count
        ready.remove_reader(one)
        ready.remove_reader(one)


@looped
async def test_a_number_that_is_used_again_is_another_socket() -> None:
    with pair() as (one, other):
        number, ready = one.fileno(), readiness()
        ready.add_reader(one, lambda: pytest.fail("of the socket before"))
        ready.remove_reader(one)
        one.close()
        with pair() as (second, peer):
            assert number in (second.fileno(), peer.fileno())
            other.close()
            peer.send(b"x")
            assert await ready.readable(second, soon())


@looped
async def test_who_is_let_go_of_in_the_same_moment_is_not_called() -> None:
    with pair() as (one, other), pair() as (second, peer):
        called: list[socket.socket] = []
        ready = readiness()

        def first(mine: socket.socket, others: socket.socket) -> None:
            called.append(mine)
            ready.remove_reader(mine)
            ready.remove_reader(others)

        ready.add_reader(one, lambda: first(one, second))
        ready.add_reader(second, lambda: first(second, one))
        other.send(b"x")
        peer.send(b"x")
        await until(lambda: bool(called))
        await asyncio.sleep(0.01)
        assert len(called) == 1


@looped
async def test_waiting_ends_by_the_clock() -> None:
    with pair() as (one, other):
        ready, loop = readiness(), asyncio.get_running_loop()
        early, late = (asyncio.create_task(ready.readable(one, soon(0.3))), soon(0.02))
        await asyncio.sleep(0)
        # Of two with deadlines the sooner one is told first, and nobody before.
        assert not await ready.readable(other, late)
        assert late <= loop.time()
        assert not early.done()
        assert not await early
        # What is over already is told, too, however many there are.
        for seconds in (0, TICK, 3, 1):
            assert not await ready.readable(one, loop.time() - seconds)
        with pair() as (second, third):
            over = [ready.readable(each, loop.time() - 1) for each in (one, second, third)]
            assert not any(await asyncio.gather(*over))
        one.send(b"x")
        assert await ready.readable(other, loop.time() + 10 * TICK)
        assert await ready.writable(one, None)


@looped
async def test_who_stops_waiting_is_forgotten() -> None:
    with pair() as (one, other):
        waiting = asyncio.create_task(readiness().readable(one, soon()))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        other.send(b"x")
        assert await readiness().readable(one, soon())


def test_what_a_callback_raises_is_told_and_stops_no_other() -> None:
    told: list[object] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        with pair() as (one, other):

            def fail() -> None:
                readiness().remove_reader(one)
                raise ValueError("of a callback")

            readiness().add_reader(one, fail)
            other.send(b"x")
            one.send(b"y")
            assert await readiness().readable(other, soon())
            await until(lambda: bool(told))

    asyncio.run(run())
    assert [str(each) for each in told] == ["of a callback"]
