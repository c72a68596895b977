"""Waiting for names to be in force: many share one turn, and nobody waits for ever."""

import asyncio

from marchproxy.dataplane.renewal import Renewal
from tests.dataplane.loops import looped, until


class Policy:
    """What is wanted, what is in force, and what happens on the way there."""

    def __init__(self) -> None:
        self.wanted = self.in_force = self.turns = 0
        self.fails = False
        self.going = asyncio.Event()
        self.going.set()

    async def refresh(self) -> None:
        self.turns += 1
        wanted = self.wanted
        await self.going.wait()
        if self.fails:
            raise RuntimeError("not applied")
        self.in_force = wanted


@looped
async def test_what_is_in_force_is_not_waited_for() -> None:
    policy = Policy()
    policy.in_force = 3
    assert await Renewal(policy.refresh, lambda: policy.in_force).reach(3, 0)
    assert policy.turns == 0


@looped
async def test_many_who_wait_share_a_turn() -> None:
    policy = Policy()
    renewal = Renewal(policy.refresh, lambda: policy.in_force)
    running = asyncio.create_task(renewal.run())
    policy.wanted = 1
    policy.going.clear()
    first = asyncio.create_task(renewal.reach(1, 10))
    await until(lambda: policy.turns == 1)
    # These come too late for the turn that has begun: all together get the next one.
    policy.wanted = 50
    others = [asyncio.create_task(renewal.reach(version, 10)) for version in range(2, 51)]
    await asyncio.sleep(0)
    policy.going.set()
    assert await first
    assert all(await asyncio.gather(*others))
    assert policy.turns == 2
    running.cancel()


@looped
async def test_who_waits_in_vain_is_told() -> None:
    policy = Policy()
    policy.fails = True
    renewal = Renewal(policy.refresh, lambda: policy.in_force)
    running = asyncio.create_task(renewal.run())
    assert not await renewal.reach(1, 0.02)
    assert policy.turns == 1
    policy.fails, policy.wanted = False, 1
    assert await renewal.reach(1, 10)
    running.cancel()


@looped
async def test_a_turn_can_be_demanded_without_waiting() -> None:
    policy = Policy()
    policy.wanted = 7
    renewal = Renewal(policy.refresh, lambda: policy.in_force)
    running = asyncio.create_task(renewal.run())
    renewal.demand()
    await until(lambda: policy.in_force == 7)
    running.cancel()
