"""Names are looked up once for all who ask at the same time, and kept for their TTL."""

import asyncio
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.admission.names import LONGEST, OF_ONE_SOURCE, AskedAddresses
from marchproxy.dataplane.names.found import Failure, Found, LookupFailed
from tests.dataplane.loops import looped, until

ONE, OTHER = ip_address("192.0.2.7"), ip_address("192.0.2.8")
HERE = (ip_address("192.0.2.1"),)


class Names:
    """Answers when it is let, and counts."""

    def __init__(self, ttl: float = 60.0) -> None:
        self.asked = 0
        self.ttl = ttl
        self.now = 0.0
        self.free = asyncio.Event()
        self.free.set()

    async def find(self, name: str) -> Found:
        self.asked += 1
        await self.free.wait()
        if name == "nowhere.test":
            raise LookupFailed(Failure.NXDOMAIN, 30.0)
        return Found((*HERE, *HERE), self.ttl)


@looped
async def test_one_question_answers_all_who_wait() -> None:
    names = Names()
    names.free.clear()
    asked = AskedAddresses(names.find, lambda: names.now)
    waiting = [asyncio.create_task(asked.find("www.test", ONE)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    names.free.set()
    assert await asyncio.gather(*waiting) == [HERE, HERE]
    assert names.asked == 1
    await asked.close()


@pytest.mark.parametrize(("ttl", "holds"), [(60.0, 60.0), (0.0, 1.0), (86400.0, LONGEST)])
@looped
async def test_answers_hold_for_their_ttl_within_bounds(ttl: float, holds: float) -> None:
    names = Names(ttl)
    asked = AskedAddresses(names.find, lambda: names.now)
    await asked.find("www.test", ONE)
    names.now = holds - 0.1
    await asked.find("www.test", ONE)
    assert names.asked == 1
    names.now = holds + 0.1
    await asked.find("www.test", ONE)
    assert names.asked == 2
    await asked.close()


@looped
async def test_a_name_without_addresses_is_remembered_too() -> None:
    names = Names()
    asked = AskedAddresses(names.find, lambda: names.now)
    for _ in range(2):
        with pytest.raises(LookupError):
            await asked.find("nowhere.test", ONE)
    assert names.asked == 1
    await asked.close()


@looped
async def test_one_source_leaves_room_for_others() -> None:
    names = Names()
    names.free.clear()
    asked = AskedAddresses(names.find, lambda: names.now)
    waiting = [asyncio.create_task(asked.find(f"{number}.test", ONE)) for number in range(OF_ONE_SOURCE)]
    await until(lambda: names.asked == OF_ONE_SOURCE)
    with pytest.raises(LookupError):
        await asked.find("one-more.test", ONE)
    waiting += [asyncio.create_task(asked.find(name, OTHER)) for name in ("0.test", "one-more.test")]
    await until(lambda: names.asked == OF_ONE_SOURCE + 1)
    names.free.set()
    assert await asyncio.gather(*waiting) == [HERE] * (OF_ONE_SOURCE + 2)
    assert await asked.find("another.test", ONE) == HERE
    await asked.close()
