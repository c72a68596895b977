"""session: a stream ends by the first of its limits, and lets go of its feed however it ends."""

import asyncio
from collections.abc import Sequence

import pytest

from marchproxy.dataplane.capture import pcapng
from marchproxy.dataplane.capture.packet import CapturedPacket
from marchproxy.dataplane.capture.session import stream
from marchproxy.dataplane.capture.wish import Wish
from marchproxy.model.errors import Conflict
from tests.dataplane.capture.invented import FORWARDED, REFUSED
from tests.dataplane.facts import StandInFeed


class Endless(StandInFeed):
    """Two packets with each reading."""

    async def read(self) -> Sequence[CapturedPacket]:
        return [FORWARDED, REFUSED]


def collect(feed: StandInFeed, wish: Wish) -> list[tuple[int, bytes]]:
    async def run() -> bytes:
        return b"".join([piece async for piece in stream(feed, wish, ["inside0"], "all")])

    found = list(pcapng.Reader().blocks(asyncio.run(run())))
    assert feed.closed
    return found


def packets(found: list[tuple[int, bytes]]) -> int:
    return sum(kind == pcapng.PACKET for kind, _ in found)


def test_number_of_packets() -> None:
    assert packets(collect(Endless(), Wish(packets=5, duration=60))) == 5


def test_size_is_never_exceeded() -> None:
    found = collect(Endless(), Wish(size=3000, duration=60))
    assert packets(found) > 5
    assert sum(len(block) for kind, block in found if kind != pcapng.STATISTICS) <= 3000


def test_duration_and_what_was_missed() -> None:
    feed = StandInFeed(FORWARDED)
    feed.missed = 4
    found = collect(feed, Wish(duration=1))
    assert packets(found) == 1
    assert found[-1][0] == pcapng.STATISTICS
    assert pcapng.dropped(found[-1][1]) == 4


def test_reader_that_goes_away_ends_the_capture() -> None:
    feed = Endless()

    async def run() -> None:
        pieces = stream(feed, Wish(), [], "")
        await anext(pieces)
        await anext(pieces)
        await pieces.aclose()

    asyncio.run(run())
    assert feed.closed


def test_feed_that_another_one_replaced_is_an_early_end() -> None:
    class Replaced(StandInFeed):
        async def read(self) -> Sequence[CapturedPacket]:
            raise Conflict("the capture has ended: nobody read it")

    assert [kind for kind, _ in collect(Replaced(), Wish())] == [pcapng.SECTION, pcapng.INTERFACE]


def test_error_of_the_feed_ends_it() -> None:
    class Broken(StandInFeed):
        async def read(self) -> Sequence[CapturedPacket]:
            raise OSError("gone")

    feed = Broken()
    with pytest.raises(OSError, match="gone"):
        collect(feed, Wish())
    assert feed.closed
