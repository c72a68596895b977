"""Batches to a log platform that answers as it likes."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from marchproxy.telemetry.logs import http as https
from marchproxy.telemetry.logs.http import HttpBatches
from marchproxy.telemetry.logs.records import LogClass
from marchproxy.telemetry.logs.sink import Refused, Sink, Unreachable
from tests.dataplane.loops import looped
from tests.telemetry.logs.made import denied, ended


class Platform:
    """Keeps what it is sent, and answers with `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.closes = False
        self.hangs = threading.Event()
        self.hangs.set()


@contextmanager
def platform() -> Iterator[tuple[Platform, str]]:
    kept = Platform()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.hangs.wait(60)
            kept.requests.append((self.path, dict(self.headers), json.loads(body)))
            self.send_response(kept.status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")
            # Without a word, as a server does that has waited long enough.
            self.close_connection = kept.closes

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield kept, f"http://127.0.0.1:{server.server_address[1]}/ingest?index=a"
    finally:
        kept.hangs.set()
        server.shutdown()
        server.server_close()
        thread.join()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@looped
async def test_a_batch_is_one_array_with_the_token_in_its_header() -> None:
    with platform() as (kept, url):
        own = HttpBatches(url, "0.1.0", b"s3cret")
        assert await own.send([ended(), denied()]) == 0
        [(path, headers, body)] = kept.requests
        assert path == "/ingest?index=a"
        assert headers["Authorization"] == "Bearer s3cret"
        assert headers["Content-Type"] == "application/json"
        assert [each["event"]["action"] for each in body] == ["flow-end", "denied"]
        await own.close()


@looped
async def test_without_a_token_there_is_no_such_header() -> None:
    with platform() as (kept, url):
        own = HttpBatches(url, "0.1.0", None)
        await own.send([ended()])
        assert "Authorization" not in kept.requests[0][1]
        await own.close()


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_what_may_be_put_right_is_tried_again(status: int) -> None:
    @looped
    async def run() -> None:
        with platform() as (kept, url):
            own = HttpBatches(url, "0.1.0", b"s3cret")
            kept.status = status
            with pytest.raises(Unreachable, match=f"HTTP {status}$") as caught:
                await own.send([ended()])
            assert "s3cret" not in str(caught.value)
            assert "ingest" not in str(caught.value)
            kept.status = 200
            assert await own.send([ended()]) == 0
            await own.close()

    run()


@pytest.mark.parametrize("status", [301, 400, 413, 422])
def test_what_will_never_be_taken_is_not_sent_for_ever(status: int) -> None:
    @looped
    async def run() -> None:
        with platform() as (kept, url):
            own = HttpBatches(url, "0.1.0", None)
            kept.status = status
            with pytest.raises(Refused, match=f"HTTP {status}"):
                await own.send([ended()])
            await own.close()

    run()


@looped
async def test_a_connection_that_was_closed_meanwhile_loses_nothing() -> None:
    with platform() as (kept, url):
        kept.closes = True
        own = HttpBatches(url, "0.1.0", None)
        for _ in range(3):
            assert await own.send([ended()]) == 0
        assert len(kept.requests) == 3
        await own.close()


@looped
async def test_a_platform_that_hangs_is_given_up_and_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "PATIENCE", 1.0)
    with platform() as (kept, url):
        kept.hangs.clear()
        own = HttpBatches(url, "0.1.0", None)
        sending = asyncio.create_task(own.send([ended()]))
        turns = 0
        while not sending.done():
            await asyncio.sleep(0.01)
            turns += 1
        assert turns > 3
        with pytest.raises(Unreachable, match="no answer"):
            await sending
        kept.hangs.set()
        await own.close()


@looped
async def test_a_platform_that_sends_a_byte_now_and_then_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "ALTOGETHER", 0.3)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with suppress(OSError):
            while not reader.at_eof():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.transport.abort()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    own = HttpBatches(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", "0.1.0", None)
    with pytest.raises(Unreachable, match="no answer"):
        await own.send([ended()])
    await own.close()
    server.close()
    await server.wait_closed()


@looped
async def test_nobody_there_is_said_without_the_path() -> None:
    own = HttpBatches("http://127.0.0.1:1/secret-path", "0.1.0", None)
    with pytest.raises(Unreachable, match=r"^http://127\.0\.0\.1:1: Connection refused$"):
        await own.send([ended()])
    await own.close()


@looped
async def test_a_sink_sends_a_hundred_at_once_and_the_rest_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(HttpBatches, "linger", 0.2)
    with platform() as (kept, url):
        sink = Sink("default", "http", url, frozenset(LogClass), HttpBatches(url, "0.1.0", None))
        for number in range(250):
            sink.offer(ended(id=number))
        await until(lambda: sink.state().sent == 250)
        assert [len(body) for _, _, body in kept.requests] == [100, 100, 50]
        await sink.close()
