"""HTTP/1.1 through a listener, from the client's first byte to the backend's last."""

import asyncio
import contextlib
import gc
import hashlib
import os
import weakref
from dataclasses import replace
from typing import NoReturn

import pytest

from tests.dataplane.admission.desk import OLD, TOKEN, blocking
from tests.dataplane.http.site import QUICK, answer, ask, get, response, routed, said, served
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import dial, free_port
from tests.policy import build
from tests.policy.build import mapping, service


@looped
async def test_a_request_goes_on_and_its_answer_comes_back() -> None:
    async with served(answer(b"hello", "200 OK", "Server: x", "Connection: keep-alive")) as (at, backend):
        [(head, body)] = await ask(at, get("/here/a?b=c"))
        assert head.startswith("HTTP/1.1 200 OK\r\n")
        assert body == b"hello"
        assert said(head, "server") == ["x"]
        assert said(head, "connection") == []
        assert backend.heads[0].startswith("GET /here/a?b=c HTTP/1.1\r\nhost: h.example\r\n")
        assert backend.said("x-forwarded-for") == "127.0.0.1"
        assert backend.said("forwarded") == 'for=127.0.0.1;proto=http;host="h.example"'
        assert backend.said("via") == "1.1 marchproxy"


@looped
async def test_nothing_is_kept_of_plans_of_before() -> None:
    async with served(answer()) as (at, backend):
        await ask(at, get())
        await until(lambda: at.admission._gate.inside == 0)
        before = weakref.ref(at.admission._judge.ledger.evaluator)
        at.apply(routed(at, backend.port))
        gc.collect()
        assert before() is None


@looped
async def test_a_client_of_before_leaves_no_request_to_the_next() -> None:
    async with served(answer()) as (at, _):
        for _ in range(2):
            await ask(at, get())
        visitors = at.admission._reads_http()._visitors.values()
        assert [each._last for each in visitors] == [None]


@looped
async def test_a_request_that_is_no_secret_is_read_once_for_all_connections() -> None:
    async with served(answer()) as (at, backend):
        for _ in range(3):
            await ask(at, get())
        [visitor] = at.admission._reads_http()._visitors.values()
        assert visitor.understood(get()) is not None
        assert len({backend.said("x-request-id", each) for each in range(3)}) == 3
        assert {backend.said("x-forwarded-for", each) for each in range(3)} == {"127.0.0.1"}
        at.apply(routed(at, backend.port))
        assert not at.admission._reads_http()._visitors


@looped
async def test_where_http_cannot_be_loaded_the_plan_of_before_stays() -> None:
    async with served(answer()) as (at, backend):
        before, loads = at.admission._judge.ledger.evaluator, at.admission._reads_http
        at.admission._reads_http = unloadable  # type: ignore[method-assign]
        with pytest.raises(ImportError):
            at.apply(routed(at, backend.port, action="deny"))
        at.admission._reads_http = loads  # type: ignore[method-assign]
        assert at.admission._judge.ledger.evaluator is before


def unloadable() -> NoReturn:
    """What a package does that was taken away meanwhile."""
    raise ImportError("it is gone")


@looped
async def test_connections_are_kept_on_both_sides() -> None:
    async with served(answer()) as (at, backend):
        assert len(await ask(at, get() * 5, 5)) == 5
        await ask(at, get())
        assert backend.connections == 1
        assert len(backend.heads) == 6


@looped
async def test_flows_tell_of_it_as_of_one_conversation_a_mapping() -> None:
    async with served(answer()) as (at, _):
        async with dial(at.port) as (reader, writer):
            for _ in range(3):
                writer.write(get())
                await response(reader)
            [flow] = await at.admission.flows(10)
            assert flow.decision.mapping == "www"
            assert flow.decision.name == "h.example"
            assert flow.received.bytes == 15
        await until(lambda: at.reasons()[-1] == ("flow-end", "CLOSED"))
        assert [kind for kind, _ in at.reasons()] == ["flow-start", *["request"] * 3, "flow-end"]


@looped
async def test_each_request_is_told_of() -> None:
    async with served(answer(b"x" * 7, "404 Not Found")) as (at, backend):
        await ask(at, get("/here/a?secret=1"))
        await until(lambda: ("request", "FORWARDED") in at.reasons())
        event = next(event for event in at.events if event.exchanged)
        facts = event.exchanged
        assert facts is not None
        assert (facts.method, facts.path, facts.version, facts.status) == ("GET", "/here/a", "1.1", 404)
        assert (facts.backend, facts.received, facts.tls) == (f"127.0.0.2:{backend.port}", 7, "")
        assert 0 < facts.connected <= facts.waited <= facts.took
        assert (facts.service, facts.route, facts.attempts, facts.sent) == ("web", "/here", 1, 0)
        assert facts.request_id == backend.said("x-request-id")
        assert event.decision.mapping == "www"
        assert event.decision.name == "h.example"


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [("/other", 404, "NO_MAPPING"), ("/hereafter", 404, "NO_MAPPING"), ("/here/no", 403, "DENY_MAPPING")],
)
@looped
async def test_what_no_mapping_allows_is_refused_and_told(path: str, status: int, reason: str) -> None:
    async with served(answer()) as (at, backend):
        deny = mapping(
            "no", "lan", "web", f"127.0.0.1:{at.port}", "http", path_prefix="/here/no", action="deny"
        )
        at.apply(routed(at, backend.port, deny))
        async with dial(at.port) as (reader, writer):
            writer.write(get(path))
            head, body = await response(reader)
            assert head.startswith(f"HTTP/1.1 {status} ")
            assert said(head, "x-marchproxy-reason") == [reason]
            assert reason in body.decode()
            writer.write(get())
            assert (await response(reader))[1] == b"hello"
        assert ("denied", reason) in at.reasons()
        assert ("request", reason) in at.reasons()


@looped
async def test_who_is_no_source_is_reset_unheard() -> None:
    async with served(answer()) as (at, _):
        async with dial(at.port, source="127.0.0.9") as (reader, writer):
            writer.write(get())
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
        assert at.reasons() == [("denied", "NO_MAPPING")]


@looped
async def test_hosts_and_paths_choose_the_backend() -> None:
    async with served(answer(b"one")) as (at, backend), served(answer(b"two")) as (_, other):
        api = service("api", "127.0.0.2", port=other.port)
        listen = f"127.0.0.1:{at.port}"
        at.apply(
            routed(
                at,
                backend.port,
                api,
                mapping("v2", "lan", "api", listen, "http", path_prefix="/here/v2"),
                mapping("api", "lan", "api", listen, "http", host="*.api.example"),
            )
        )
        asked = [get("/here/v2/x"), get("/here/v1"), get("/anything", "a.API.example:8080"), get("/x")]
        bodies = [body for _, body in await ask(at, b"".join(asked), 4)]
        assert bodies[:3] == [b"two", b"one", b"two"]
        assert b"NO_MAPPING" in bodies[3]


# ---- bodies


@pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True])
@looped
async def test_bodies_pass_whole_both_ways(size: int, chunked: bool) -> None:
    body = os.urandom(size)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        from tests.dataplane.http.site import read_body

        got = await read_body(reader, head)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(got), 70_000):
            piece = got[start : start + 70_000]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with served(serve=echo, limits=replace(QUICK, silence=20.0, sending=20.0)) as (at, _):
        async with dial(at.port) as (reader, writer):
            framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
            writer.write(f"POST /here HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n".encode())
            for start in range(0, size, 33_333):
                piece = body[start : start + 33_333]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await writer.drain()
            if chunked:
                writer.write(b"0\r\n\r\n")
            _, got = await response(reader)
        assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest()


@looped
async def test_an_answer_that_ends_with_its_connection_is_passed_on_in_chunks() -> None:
    async with served(b"HTTP/1.0 200 OK\r\n\r\nuntil the end") as (at, _):
        [(head, body)] = await ask(at, get())
        assert said(head, "transfer-encoding") == ["chunked"]
        assert body == b"until the end"
        [(head, body)] = await ask(at, get(version="1.0"))
        assert said(head, "connection") == ["close"]
        assert body == b"until the end"


@looped
async def test_an_answer_that_breaks_off_is_no_whole_one() -> None:
    async with served(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhalf") as (at, _):
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await ask(at, get())


@looped
async def test_head_has_the_length_and_no_body() -> None:
    async with served(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n") as (at, _):
        request = b"HEAD /here HTTP/1.1\r\nHost: h\r\n\r\n"
        found = await ask(at, request * 2, 2)
        assert [said(head, "content-length") for head, _ in found] == [["1234"], ["1234"]]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@looped
async def test_answers_without_body(status: str) -> None:
    async with served(f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode()) as (at, backend):
        assert len(await ask(at, get() * 2, 2)) == 2
        assert backend.connections == 1


@looped
async def test_trailers_go_on() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n"
    async with served(raw) as (at, _), dial(at.port) as (reader, writer):
        writer.write(get())
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(b"3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n")) == (
            b"3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n"
        )


@looped
async def test_interim_answers_go_on_and_who_expects_them_waits_no_longer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"expect: 100-continue" in head
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        body = await reader.readexactly(5)
        writer.write(answer(body))

    async with served(serve=serve) as (at, _), dial(at.port) as (reader, writer):
        writer.write(b"PUT /here HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert (await response(reader))[0].startswith("HTTP/1.1 100 ")
        writer.write(b"12345")
        assert (await response(reader))[0].startswith("HTTP/1.1 103 ")
        assert (await response(reader))[1] == b"12345"


@looped
async def test_an_answer_before_the_body_was_sent_ends_the_connection() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"too large", "413 Content Too Large"))
        await asyncio.sleep(0.2)

    async with served(serve=serve) as (at, _), dial(at.port) as (reader, writer):
        writer.write(b"PUT /here HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000))
        head, body = await response(reader)
        assert head.startswith("HTTP/1.1 413 ")
        assert said(head, "connection") == ["close"]
        assert body == b"too large"
        assert await reader.read() == b""


# ---- backends that fail


@looped
async def test_a_backend_that_is_dead_is_told_of() -> None:
    async with served(answer()) as (at, _):
        at.apply(routed(at, free_port()))
        [(head, _)] = await ask(at, get())
        assert head.startswith("HTTP/1.1 502 ")
        assert said(head, "x-marchproxy-reason") == ["UPSTREAM_REFUSED"]


@looped
async def test_another_backend_is_tried() -> None:
    async with served(answer()) as (at, backend):
        web = service("web", "127.0.0.2", "127.0.0.3", port=backend.port)
        made = mapping("www", "lan", "web", f"127.0.0.1:{at.port}", "http", path_prefix="/here")
        at.apply(build.plan(service("lan", "127.0.0.1"), web, made))
        for _ in range(8):
            assert (await ask(at, get()))[0][1] == b"hello"


@looped
async def test_a_kept_connection_that_has_ended_is_replaced() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer())
        await reader.readuntil(b"\r\n\r\n")

    async with served(serve=once) as (at, _):
        assert [body for _, body in await ask(at, get() * 4, 4)] == [b"hello"] * 4


@looped
async def test_a_post_is_never_sent_twice() -> None:
    asked = []

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer())
        asked.append(await reader.readuntil(b"\r\n\r\n"))

    post = b"POST /here HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
    async with served(serve=once) as (at, _):
        [first, second] = await ask(at, get() + post, 2)
        assert first[1] == b"hello"
        assert second[0].startswith("HTTP/1.1 502 ")
        assert len(asked) == 2


@looped
async def test_a_backend_that_stays_silent_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with served(serve=silent) as (at, _):
        polling = asyncio.create_task(_poll(at))
        [(head, _)] = await ask(at, get())
        polling.cancel()
        assert head.startswith("HTTP/1.1 504 ")
        assert said(head, "x-marchproxy-reason") == ["UPSTREAM_TIMEOUT"]


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    ],
)
@looped
async def test_an_answer_with_two_readings_is_none(raw: bytes) -> None:
    async with served(raw) as (at, _):
        [(head, _)] = await ask(at, get())
        assert head.startswith("HTTP/1.1 502 ")


@looped
async def test_more_than_was_asked_for_ends_the_backend_s_connection() -> None:
    async with served(answer() + answer(b"poison")) as (at, backend):
        assert [(await ask(at, get()))[0][1] for _ in range(3)] == [b"hello"] * 3
        assert backend.connections == 3


# ---- clients that mean no good


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /here HTTP/1.1\nHost: h\n\n",
        b"GET /here HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
        b"GET /here HTTP/1.1\r\n\r\n",
        b"GET /here HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
        b"GET /here HTTP/1.1\r\nHost : h\r\n\r\n",
        b"POST /here HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /here HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /here HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello",
        b"POST /here HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /here HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
        b"POST /here HTTP/1.1\r\nHost: h\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /here HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET http://other/here HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /here/../etc HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /here/%2e%2e/etc HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET here HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /here HTTP/1.1\r\nHost: h/../x\r\n\r\n",
        b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /here HTTP/2.0\r\nHost: h\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
        b"GET /" + b"a" * 9000,
        b"GET /here HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 40_000,
    ],
)
@looped
async def test_what_has_two_readings_is_refused_and_never_sent_on(request_: bytes) -> None:
    async with served(answer()) as (at, backend), dial(at.port) as (reader, writer):
        writer.write(request_)
        head, _ = await response(reader)
        assert head.split(" ")[1] in ("400", "405", "414", "431", "501", "505")
        assert said(head, "connection") == ["close"]
        assert await reader.read() == b""
        assert backend.heads == []


@looped
async def test_a_body_with_broken_framing_ends_both_connections() -> None:
    async with served(answer()) as (at, backend), dial(at.port) as (reader, writer):
        writer.write(b"POST /here HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n")
        head, _ = await response(reader)
        assert head.startswith("HTTP/1.1 400 ")
        assert await reader.read() == b""
        assert backend.bodies == []


@looped
async def test_what_clients_say_about_themselves_does_not_go_on() -> None:
    forged = (
        "X-Forwarded-For: 1.2.3.4",
        "Forwarded: for=1.2.3.4",
        "X_Forwarded_For: 1.2.3.4",
        "X-MarchProxy-Service: admin",
        "X-Real-IP: 1.2.3.4",
        "Connection: keep-alive, X-Secret",
        "X-Secret: y",
        "TE: gzip",
        "Upgrade: h2c",
        "Keep-Alive: timeout=5",
        "X-Own: kept",
    )
    async with served(answer()) as (at, backend):
        await ask(at, get("/here", "h", *forged))
        head = backend.heads[0].lower()
        assert "1.2.3.4" not in head
        assert "x-own: kept" in head
        for name in ("x-marchproxy-service", "x-real-ip", "x-secret", "upgrade", "keep-alive", "\r\nte:"):
            assert name not in head


@pytest.mark.parametrize("sent", [b"", b"GET /he", b"GET /here HTTP/1.1\r\nHost: h\r\n", get()])
@looped
async def test_a_client_that_says_nothing_more_is_ended(sent: bytes) -> None:
    async with served(answer()) as (at, _):
        polling = asyncio.create_task(_poll(at))
        async with dial(at.port) as (reader, writer):
            writer.write(sent)
            got = b""
            with contextlib.suppress(ConnectionResetError):
                got = await reader.read()
        polling.cancel()
        if sent and sent != get():
            assert got.startswith(b"HTTP/1.1 408 ")


@looped
async def test_a_client_that_takes_nothing_is_ended_and_its_backend_waits() -> None:
    async with served(answer(bytes(50_000_000))) as (at, _):
        polling = asyncio.create_task(_poll(at))
        async with dial(at.port) as (_, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(get())
            await until(lambda: bool(at.events) and at.events[-1].kind.value == "flow-end", "its end")
        polling.cancel()
        [ended] = [event.flow for event in at.events if event.kind.value == "flow-end"]
        assert ended is not None
        assert ended.received.bytes < 30_000_000


# ---- policy that changes


@looped
async def test_a_new_plan_decides_about_the_next_request_of_an_open_connection() -> None:
    async with served(answer()) as (at, backend), dial(at.port) as (reader, writer):
        writer.write(get())
        await response(reader)
        at.apply(routed(at, backend.port, action="deny"), 3)
        writer.write(get())
        assert (await response(reader))[0].startswith("HTTP/1.1 403 ")
        at.apply(routed(at, backend.port), 4)
        writer.write(get())
        assert (await response(reader))[1] == b"hello"


@looped
async def test_what_runs_ends_when_it_is_no_longer_allowed() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")
        await reader.read()

    async with served(serve=endless) as (at, backend), dial(at.port) as (reader, writer):
        writer.write(get())
        await reader.readuntil(b"\r\n\r\n")
        at.apply(routed(at, backend.port, priority=7), 3)
        assert await reader.readexactly(1) == b"x"
        at.apply(blocking(routed(at, backend.port), "127.0.0.2"), 4)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)


@looped
async def test_draining_answers_what_was_asked_and_no_more() -> None:
    asked, gate = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await gate.wait()
        writer.write(answer())

    async with served(serve=slow) as (at, _), dial(at.port) as idle, dial(at.port) as (reader, writer):
        writer.write(get())
        await asked.wait()
        await until(lambda: len(at.admission._reads_http().live) == 2)
        draining = asyncio.create_task(at.admission.drain(5.0))
        assert await idle[0].read() == b""
        gate.set()
        head, body = await response(reader)
        assert body == b"hello"
        assert said(head, "connection") == ["close"]
        await draining


@looped
async def test_cutting_a_flow_ends_its_connection() -> None:
    async with served(answer()) as (at, _), dial(at.port) as (reader, writer):
        writer.write(get())
        await response(reader)
        [flow] = await at.admission.flows(10)
        assert await at.admission.cut(frozenset({flow.decision.id})) == {flow.decision.id}
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)


# ---- credentials


@pytest.mark.parametrize(
    ("field", "status", "reason"),
    [
        (f"Authorization: Bearer {TOKEN}", 200, ""),
        ("Authorization: Basic dmF1bHQ6dDBrZW4tb2YtdGhlLXZhdWx0", 200, ""),
        (f"Authorization: Bearer {OLD}", 401, "AUTH_EXPIRED"),
        ("Authorization: Bearer wrong", 401, "AUTH_INVALID"),
        ("Authorization: Digest x", 401, "AUTH_INVALID"),
        ("X: y", 401, "AUTH_MISSING"),
    ],
)
@looped
async def test_credentials_open_a_route(field: str, status: int, reason: str) -> None:
    async with served(answer()) as (at, backend):
        vault = service("vault", "127.0.0.2", auth="token", port=backend.port)
        made = mapping("keys", "lan", "vault", f"127.0.0.1:{at.port}", "http")
        at.apply(build.plan(service("lan", "127.0.0.1"), vault, made))
        [(head, _)] = await ask(at, get("/x", "h", field))
        assert head.startswith(f"HTTP/1.1 {status} ")
        if status == 200:
            assert backend.said("authorization") is None
            assert backend.said("x-marchproxy-service") == "vault"
        else:
            assert said(head, "x-marchproxy-reason") == [reason]
            assert len(said(head, "www-authenticate")) == 2
            assert backend.heads == []


@looped
async def test_a_backend_s_own_authorization_goes_on() -> None:
    async with served(answer()) as (at, backend):
        await ask(at, get("/here", "h", "Authorization: Bearer theirs"))
        assert backend.said("authorization") == "Bearer theirs"


async def _poll(at: object) -> None:
    while True:
        at.admission._reads_http().tick()  # type: ignore[attr-defined]
        await asyncio.sleep(0.05)
