"""Key sets are followed at a pace of our own, and never lost because their issuer is away."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from marchproxy.dataplane.credentials.jwks import JwksFailed
from marchproxy.dataplane.credentials.keysets import KeySets, Pace
from marchproxy.model.publickey import PublicKey
from tests.dataplane.credentials.jwts import ed_key, public
from tests.dataplane.loops import looped, until

A, B = "https://a.example/", "https://b.example/"
FIRST, SECOND = ((public(ed_key(number)),) for number in (1, 2))
QUICK = Pace(refresh=0.02, retry=0.01, least=0.005)
SLOW = Pace(refresh=3600, retry=3600, least=0)


class Issuers:
    """What is at each address: keys, or an error."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[PublicKey, ...] | str] = {A: FIRST, B: SECOND}
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, url: str) -> tuple[PublicKey, ...]:
        self.asked.append(url)
        await self.gate.wait()
        held = self.held[url]
        if isinstance(held, str):
            raise JwksFailed(f"{url}: {held}")
        return held


@asynccontextmanager
async def following(pace: Pace) -> AsyncGenerator[tuple[KeySets, Issuers, list[str]]]:
    issuers, changes = Issuers(), list[str]()
    sets = KeySets(lambda: changes.append("changed"), get=issuers.get, pace=pace)
    try:
        yield sets, issuers, changes
    finally:
        await sets.close()


@looped
async def test_what_is_new_is_waited_for() -> None:
    async with following(SLOW) as (sets, issuers, changes):
        await sets.watch({A, B}, wait=5)
        assert (sets.keys(A), sets.keys(B)) == (FIRST, SECOND)
        assert changes == ["changed", "changed"]
        await sets.watch({A, B}, wait=5)
        assert sorted(issuers.asked) == [A, B], "what is followed is not asked again"
        await sets.watch(set(), wait=5)
        assert sets.keys(A) == ()


@looped
async def test_but_not_for_ever() -> None:
    async with following(SLOW) as (sets, issuers, _):
        issuers.gate.clear()
        await sets.watch({A}, wait=0.01)
        assert sets.keys(A) == ()
        issuers.gate.set()
        await until(lambda: sets.keys(A) == FIRST)


@looped
async def test_an_issuer_that_is_away_keeps_its_keys() -> None:
    async with following(QUICK) as (sets, issuers, changes):
        await sets.watch({A}, wait=5)
        issuers.held[A] = "gone"
        await until(lambda: bool(sets.problems()))
        assert sets.problems() == ["https://a.example/: gone"]
        assert sets.keys(A) == FIRST
        issuers.held[A] = SECOND
        await until(lambda: sets.keys(A) == SECOND)
        assert sets.problems() == []
        assert changes == ["changed", "changed"]


@looped
async def test_the_same_keys_are_no_change() -> None:
    async with following(QUICK) as (sets, issuers, changes):
        await sets.watch({A}, wait=5)
        await until(lambda: len(issuers.asked) >= 4)
        assert changes == ["changed"]


@looped
async def test_a_key_that_is_missing_is_asked_for() -> None:
    async with following(SLOW) as (sets, issuers, _):
        await sets.watch({A, B}, wait=5)
        issuers.held[A] = SECOND
        sets.want(A)
        sets.want("https://unknown.example/")
        await until(lambda: sets.keys(A) == SECOND)
        assert issuers.asked.count(B) == 1


@looped
async def test_strangers_cannot_make_us_ask_at_their_pace() -> None:
    async with following(Pace(refresh=3600, retry=3600, least=3600)) as (sets, issuers, _):
        await sets.watch({A}, wait=5)
        for _ in range(20):
            sets.want(A)
            await asyncio.sleep(0)
        assert issuers.asked == [A]
