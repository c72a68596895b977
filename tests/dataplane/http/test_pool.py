"""Connections that are kept for the next request."""

from dataclasses import replace

from tests.dataplane.http.site import answer, ask, get, served
from tests.dataplane.loops import looped
from tests.policy import build
from tests.policy.build import mapping, service


@looped
async def test_two_services_at_one_place_do_not_share_connections_nor_lose_them() -> None:
    async with served(answer()) as (at, backend):
        listen = f"127.0.0.1:{at.port}"
        one, two = (service(name, "127.0.0.2", port=backend.port) for name in ("one", "two"))
        made = [mapping(name, "lan", name, listen, "http", path_prefix=f"/{name}") for name in ("one", "two")]
        at.apply(build.plan(service("lan", "127.0.0.1"), one, two, *made))
        for _ in range(4):
            await ask(at, get("/one"))
            await ask(at, get("/two"))
        assert backend.connections == 2
        assert len(at.admission._reads_http()._pool._every) == 2


@looped
async def test_what_was_kept_in_the_clear_is_not_used_for_tls() -> None:
    async with served(answer()) as (at, _):
        await ask(at, get())
        pool = at.admission._reads_http()._pool
        [kept] = pool._every
        assert pool.take(replace(kept.backend, tls="web.example")) is None
        assert pool.take(replace(kept.backend, weight=7)) is kept
