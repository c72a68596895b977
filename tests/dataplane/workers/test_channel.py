"""channel: messages arrive whole, in order, with their descriptors; an end that is gone is heard of."""

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from marchproxy.dataplane.workers.channel import DESCRIPTORS, Channel
from tests.dataplane.loops import PATIENCE, looped


class End:
    """What one end hears."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: asyncio.Queue[tuple[Any, list[int]]] = asyncio.Queue()
        self.lost = asyncio.Event()
        self.channel = Channel(sock, self._heard, self.lost.set)

    def _heard(self, message: object, descriptors: list[int]) -> None:
        self.messages.put_nowait((message, descriptors))

    async def next(self) -> tuple[Any, list[int]]:
        return await asyncio.wait_for(self.messages.get(), PATIENCE)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[End, End]]:
    ends = [End(sock) for sock in socket.socketpair()]
    try:
        yield ends[0], ends[1]
    finally:
        for end in ends:
            end.channel.close()


@looped
async def test_messages_arrive_in_order_whatever_their_size() -> None:
    async with pair() as (one, other):
        sent = [b"x" * size for size in (0, 1, 65536, 5_000_000, 3)]
        for message in sent:
            one.channel.say(message)
        other.channel.say("back")
        assert [(await other.next())[0] for _ in sent] == sent
        assert await one.next() == ("back", [])


@looped
async def test_descriptors_come_with_their_message() -> None:
    async with pair() as (one, other):
        pipes = [os.pipe() for _ in range(3)]
        for number, (reader, writer) in enumerate(pipes):
            one.channel.say((number, b"y" * 300_000), [reader, writer])
            os.close(reader)
            os.close(writer)
        for number in range(3):
            (found, _), (reader, writer) = await other.next()
            assert found == number
            os.write(writer, b"word")
            assert os.read(reader, 10) == b"word"
            assert not os.get_inheritable(reader)
            os.close(reader)
            os.close(writer)


@looped
async def test_too_many_descriptors_are_refused_and_none_is_lost() -> None:
    async with pair() as (one, _):
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(ValueError, match="descriptors in one message"):
            one.channel.say("x", [0] * (DESCRIPTORS + 1))
        assert len(os.listdir("/proc/self/fd")) == before


@looped
async def test_an_end_that_is_gone_is_heard_of_once_and_takes_no_more() -> None:
    async with pair() as (one, other):
        other.channel.say("last")
        other.channel.close()
        assert (await one.next())[0] == "last"
        await asyncio.wait_for(one.lost.wait(), PATIENCE)
        assert not other.lost.is_set(), "whoever closes knows"
        before = len(os.listdir("/proc/self/fd"))
        one.channel.say("nobody", [0])
        assert len(os.listdir("/proc/self/fd")) == before


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """So many more descriptors may be opened."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, open_descriptors()))
    taken = [os.open("/dev/null", os.O_RDONLY)]
    while taken[-1] < highest:
        taken.append(os.open("/dev/null", os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1 + count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in taken:
            os.close(each)


@looped
async def test_an_end_that_cannot_have_all_descriptors_ends_and_keeps_none() -> None:
    async with pair() as (one, other):
        one.channel.say("files", [0, 0, 0])
        before = open_descriptors()
        with room_for(1):
            await asyncio.wait_for(other.lost.wait(), PATIENCE)
        assert other.messages.empty()
        await asyncio.wait_for(one.lost.wait(), PATIENCE)
        assert len(open_descriptors()) == len(before) - 2, "both sockets are closed, and that is all"


@looped
async def test_an_end_that_cannot_copy_descriptors_ends_and_keeps_none() -> None:
    async with pair() as (one, other):
        before = open_descriptors()
        with room_for(1):
            one.channel.say("files", [0, 0, 0])
        assert one.lost.is_set()
        await asyncio.wait_for(other.lost.wait(), PATIENCE)
        assert len(open_descriptors()) == len(before) - 2


@looped
async def test_a_message_that_cannot_be_carried_out_ends_the_channel(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(message: object, descriptors: list[int]) -> None:
        raise LookupError(message)

    ours, theirs = socket.socketpair()
    lost = asyncio.Event()
    one, other = End(ours), Channel(theirs, refuse, lost.set)
    one.channel.say("x")
    await asyncio.wait_for(lost.wait(), PATIENCE)
    await asyncio.wait_for(one.lost.wait(), PATIENCE)
    other.say("nobody")
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "LookupError: x" in line
