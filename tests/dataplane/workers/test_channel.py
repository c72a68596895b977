"""channel: messages arrive whole, in order, with their descriptors; an end that is gone is heard of."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from marchproxy.dataplane.workers.channel import DESCRIPTORS, Channel
from tests.dataplane.loops import looped


class End:
    """What one end hears."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: asyncio.Queue[tuple[Any, list[int]]] = asyncio.Queue()
        self.lost = asyncio.Event()
        self.channel = Channel(sock, self._heard, self.lost.set)

    def _heard(self, message: object, descriptors: list[int]) -> None:
        self.messages.put_nowait((message, descriptors))

    async def next(self) -> tuple[Any, list[int]]:
        return await asyncio.wait_for(self.messages.get(), 5)


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
        await asyncio.wait_for(one.lost.wait(), 5)
        assert not other.lost.is_set(), "whoever closes knows"
        before = len(os.listdir("/proc/self/fd"))
        one.channel.say("nobody", [0])
        assert len(os.listdir("/proc/self/fd")) == before
