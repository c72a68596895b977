"""So many requests at one time with a backend; the others wait in turn, or do not."""

import asyncio
from ipaddress import ip_address

from marchproxy.dataplane.http.room import Room
from marchproxy.policy.plan import Backend
from tests.dataplane.loops import looped

ONE, TWO = (Backend(ip_address(f"10.0.0.{n}"), 80, "web") for n in (1, 2))


def later(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


@looped
async def test_who_waits_has_its_turn_in_order() -> None:
    room, order = Room(), []
    assert room.enter(ONE, 1)
    assert not room.enter(ONE, 1)
    assert room.enter(TWO, 1)

    async def wait(name: str) -> None:
        assert await room.wait(ONE, 1, 2, later(5))
        order.append(name)

    first, second = asyncio.create_task(wait("first")), asyncio.create_task(wait("second"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not await room.wait(ONE, 1, 2, later(5))
    room.leave(ONE)
    assert not room.enter(ONE, 1)
    await first
    room.leave(ONE)
    await second
    assert order == ["first", "second"]
    room.leave(ONE)
    room.leave(TWO)
    assert not room._inside
    assert not room._waiting


@looped
async def test_who_waits_too_long_or_goes_leaves_nothing_behind() -> None:
    room = Room()
    assert room.enter(ONE, 1)
    assert not await room.wait(ONE, 1, 5, later(0.01))
    gone = asyncio.create_task(room.wait(ONE, 1, 5, later(5)))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait({gone})
    # It had its turn, and was cancelled before it could take it.
    late = asyncio.create_task(room.wait(ONE, 1, 5, later(5)))
    await asyncio.sleep(0)
    room.leave(ONE)
    late.cancel()
    await asyncio.wait({late})
    assert room.enter(ONE, 1)
    room.leave(ONE)
    assert not room._inside
    assert not room._waiting
