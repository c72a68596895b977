"""Requests and answers that mappings change, on their way through a listener."""

import asyncio
from typing import Any

import pytest

from marchproxy.dataplane.http.messages import Request
from marchproxy.dataplane.http.rewriting import redirection
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.documents import read_mapping
from marchproxy.policy.actions import Actions
from tests.dataplane.http.site import LAN, answer, ask, response, routed, served
from tests.dataplane.loops import looped
from tests.dataplane.proxy.peers import dial, tcp_server
from tests.policy import build
from tests.policy.build import mapping, service


def asking(line: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join((line + b" HTTP/1.1", b"Host: Shop.example:8080", *fields, b"", b""))


@looped
async def test_paths_hosts_and_headers_are_rewritten_both_ways() -> None:
    actions: dict[str, Any] = {
        "rewrite_prefix": "/v2",
        "rewrite_host": "app.internal",
        "request_headers": ["set x-env prod", "remove cookie"],
        "response_headers": ["set strict-transport-security max-age=1", "remove server"],
    }
    said = answer(b"hello", "200 OK", "Server: secret", "Strict-Transport-Security: no")
    async with served(said, **actions) as (at, backend):
        request = asking(b"GET /here/x?y=1", b"X-Env: test", b"X_Env: test", b"Cookie: a=b")
        # The same head twice on one connection is not read again.
        for head, body in await ask(at, request * 2, 2):
            assert body == b"hello"
            assert "server:" not in head.lower()
            assert head.lower().count("strict-transport-security: max-age=1") == 1
    for index in (0, 1):
        assert backend.heads[index].startswith("GET /v2/x?y=1 HTTP/1.1\r\n")
        assert backend.said("host", index) == "app.internal"
        assert backend.said("x-forwarded-host", index) == "Shop.example:8080"
        assert backend.said("x-env", index) == "prod"
        assert "X_Env" not in backend.heads[index]
        assert backend.said("cookie", index) is None


@looped
async def test_what_is_said_again_is_rewritten_as_the_plan_in_force_says() -> None:
    request = asking(b"GET /here")
    plans: list[dict[str, Any]] = [{}, {"rewrite_prefix": "/a"}, {"rewrite_prefix": "/b"}, {}]
    async with served(answer()) as (at, backend), dial(at.port) as (reader, writer):
        for changes in plans:
            at.apply(routed(at, backend.port, **changes))
            writer.write(request)
            await response(reader)
    assert [head.split()[1] for head in backend.heads] == ["/here", "/a", "/b", "/here"]


@looped
async def test_a_redirect_needs_no_backend() -> None:
    async with served(answer()) as (at, backend):
        fields: dict[str, Any] = {
            "name": "away",
            "sources": ["lan"],
            "protocols": ["http"],
            "listen": f"127.0.0.1:{at.port}",
            "redirect": "https://{host}{path}",
            "response_headers": ["set x-a b"],
        }
        at.apply(build.plan(LAN, read_mapping(fields)))
        [(head, body)] = await ask(at, asking(b"GET /a?b=c"))
        [(again, nothing)] = await ask(at, asking(b"HEAD /a?b=c"))
        assert head.startswith("HTTP/1.1 308 ")
        assert "location: https://shop.example/a?b=c\r\n" in head
        assert "x-a: b\r\n" in head
        assert b"https://shop.example/a?b=c" in body
        assert again.startswith("HTTP/1.1 308 ")
        assert not nothing
        [(told, _)] = await ask(at, b"GET / HTTP/1.0\r\n\r\n")
        assert told.startswith("HTTP/1.1 400 ")
    assert backend.connections == 0


@looped
async def test_conditions_choose_and_a_method_that_does_not_fit_is_told() -> None:
    async with served(answer(b"web")) as (at, backend):
        more = [
            service("other", "127.0.0.2", port=backend.port),
            mapping(
                *("posts", "lan", "other", f"127.0.0.1:{at.port}", "http"),
                path_prefix="/only",
                methods=["POST"],
                rewrite_prefix="/posted",
            ),
            mapping(
                *("ban", "lan", "all", f"127.0.0.1:{at.port}", "http"),
                headers=["x-bad: yes"],
                action="deny",
                priority=1,
            ),
        ]
        at.apply(routed(at, backend.port, *more))
        [(refused, _)] = await ask(at, asking(b"GET /only"))
        assert refused.startswith("HTTP/1.1 405 ")
        assert "allow: POST\r\n" in refused
        assert "x-marchproxy-reason: NO_MAPPING\r\n" in refused
        [(taken, _)] = await ask(at, asking(b"POST /only/x", b"Content-Length: 0"))
        assert taken.startswith("HTTP/1.1 200 ")
        for bad in (b"X-Bad: no, YES", b"x_bad: yes"):
            [(banned, _)] = await ask(at, asking(b"GET /here", bad))
            assert banned.startswith("HTTP/1.1 403 ")
        [(good, _)] = await ask(at, asking(b"GET /here", b"X-Bad: no"))
        assert good.startswith("HTTP/1.1 200 ")
    assert [head.split()[1] for head in backend.heads] == ["/posted/x", "/here"]


@looped
async def test_what_mappings_look_at_does_not_come_behind_a_body() -> None:
    async with served(answer(b"web")) as (at, backend):
        ban = mapping(
            *("ban", "lan", "all", f"127.0.0.1:{at.port}", "http"),
            headers=["x-bad"],
            action="deny",
            priority=1,
        )
        at.apply(routed(at, backend.port, ban, request_headers=["remove x-gone"], methods=["POST"]))
        trailers = b"X-Bad: 1\r\nx_gone: 1\r\nX-HTTP-Method-Override: DELETE\r\nX-Fine: 1\r\n"
        body = b"1\r\nx\r\n0\r\n" + trailers + b"\r\n"
        heard: list[bytes] = []

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            heard.append(await reader.readuntil(b"\r\n0\r\n"))
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer())

        async with tcp_server(listen, "127.0.0.2") as port:
            at.apply(routed(at, port, ban, request_headers=["remove x-gone"], methods=["POST"]))
            [(head, _)] = await ask(at, asking(b"POST /here", b"Transfer-Encoding: chunked") + body)
        assert head.startswith("HTTP/1.1 200 ")
        assert heard[-1] == b"x-fine: 1\r\n\r\n"


def test_a_redirect_to_the_host_that_was_asked_for_needs_one() -> None:
    request = Request("GET", "", "", "/", "/", (), 0, "1.0")
    with pytest.raises(Unfit):
        redirection(request, Actions(redirect="https://{host}{path}"))
