"""Connections to backends that speak HTTP/2, shared and opened once."""

import asyncio
import ssl

import pytest

from marchproxy.dataplane.credentials.contexts import server_context
from tests.dataplane.admission.desk import desk
from tests.dataplane.http.http2.backend import Backend2, Session, routed2, served2
from tests.dataplane.http.http2.peer import client
from tests.dataplane.http.site import QUICK, ask, get, said
from tests.dataplane.http.test_tls import TWO, known
from tests.dataplane.loops import looped, until
from tests.policy import build
from tests.policy.build import mapping, service


@looped
async def test_who_comes_at_the_same_time_waits_for_one_connection() -> None:
    async with served2() as (at, backend), client(at.port) as peer:
        numbers = [peer.ask() for _ in range(30)]
        for number in numbers:
            assert (await peer.hear(number)).status == 200
        assert len(backend.sessions) == 1


@looped
async def test_one_that_cannot_be_reached_is_followed_by_the_next() -> None:
    async with served2() as (at, backend):
        web = service("web", "127.0.0.2", "127.0.0.3", port=backend.port)
        made = mapping("calls", "lan", "web", f"127.0.0.1:{at.port}", "grpc", path_prefix="/here")
        at.apply(build.plan(service("lan", "127.0.0.1"), web, made), 3)
        for _ in range(5):
            assert (await ask(at, get()))[0][0].startswith("HTTP/1.1 200 ")
        assert not at.admission._reads_http()._http2._opening


@looped
async def test_nobody_listens() -> None:
    async with served2() as (at, _):
        at.apply(routed2(at, 9), 3)
        [(head, _)] = await ask(at, get())
        assert said(head, "x-marchproxy-reason") == ["UPSTREAM_REFUSED"]


@pytest.mark.parametrize(("protocols", "status"), [(("h2",), 200), (("http/1.1",), 502), ((), 502)])
@looped
async def test_under_tls_a_backend_has_to_agree(
    protocols: tuple[str, ...], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts = known()
    trusting = ssl.create_default_context(cadata=TWO.chain)
    trusting.check_hostname = False
    trusting.set_alpn_protocols(["h2"])
    monkeypatch.setattr(contexts, "_trusting", {("", ("h2",), "", True): trusting})
    backend = Backend2(Session.answer)
    listening = await asyncio.start_server(backend.serve, "127.0.0.2", 0, ssl=server_context(TWO, protocols))
    port = listening.sockets[0].getsockname()[1]
    async with desk(limits=QUICK, contexts=contexts) as at:
        web = service("web", "127.0.0.2", port=port, tls=True, protocol="grpc")
        made = mapping("www", "lan", "web", f"127.0.0.1:{at.port}", "http", path_prefix="/here")
        at.apply(build.plan(service("lan", "127.0.0.1"), web, made))
        [(head, _)] = await ask(at, get())
        assert head.startswith(f"HTTP/1.1 {status} ")
        if status == 200:
            assert backend.asked[0][":scheme"] == "https"
        else:
            assert said(head, "x-marchproxy-reason") == ["TLS_FAILED"]
    listening.close()


@looped
async def test_closing_ends_what_is_under_way() -> None:
    async with served2(lambda *_: None) as (at, backend), client(at.port) as peer:
        peer.ask()
        await until(lambda: len(backend.asked) == 1)
        [[link]] = at.admission._reads_http()._http2._links.values()
    await until(lambda: link.over)
