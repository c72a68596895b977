"""Clients that are slow, huge, too many, gone, or just ordinary."""

import asyncio
import itertools
import socket
from collections.abc import AsyncGenerator
from http import HTTPStatus
from pathlib import Path

import pytest

from marchproxy.dataplane.control.http1 import HttpError, Request, Response
from marchproxy.dataplane.control.server import Limits
from marchproxy.model.errors import Conflict, InvalidValue, MarchproxyError, NotFound, NotPermitted
from tests.dataplane.control.clients import ask, connected, read_answer, read_chunks, serving
from tests.dataplane.loops import looped, until


async def reflect(request: Request) -> Response:
    return Response(f"{request.method} {request.path} {len(request.body)}".encode())


@looped
async def test_requests_follow_each_other_on_one_connection(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving(path, reflect), connected(path) as (reader, writer):
        for number in range(3):
            body = b"x" * number
            writer.write(b"POST /%d HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (number, number, body))
            assert (await read_answer(reader)).body == b"POST /%d %d" % (number, number)
        writer.write(b"GET /last HTTP/1.1\r\nConnection: close\r\n\r\n")
        answer = await read_answer(reader)
        assert answer.headers["connection"] == "close"
        assert await reader.read() == b""


@looped
async def test_a_request_may_come_byte_by_byte_and_two_at_once(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving(path, reflect), connected(path) as (reader, writer):
        for byte in b"GET /slow HTTP/1.1\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await read_answer(reader)).body == b"GET /slow 0"
        writer.write(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
        assert (await read_answer(reader)).body == b"GET /1 0"
        assert (await read_answer(reader)).body == b"GET /2 0"


@looped
async def test_head_is_get_without_the_body(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving(path, reflect), connected(path) as (reader, writer):
        writer.write(b"HEAD /x HTTP/1.1\r\nConnection: close\r\n\r\n")
        answer = await read_answer(reader, head_only=True)
        assert (answer.status, answer.headers["content-length"]) == (200, "8")
        assert await reader.read() == b""


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab"])
@looped
async def test_a_request_that_does_not_end_is_given_up(tmp_path: Path, sent: bytes) -> None:
    path = tmp_path / "s"
    async with serving(path, reflect, Limits(idle=0.05)), connected(path) as (reader, writer):
        writer.write(sent)
        answer = await read_answer(reader)
        assert (answer.status, answer.document["error"]["name"]) == (408, "RequestTimeout")
        assert await reader.read() == b""


@pytest.mark.parametrize(
    ("sent", "status", "name"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400, "BadRequest"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", 431, "HeadTooLarge"),
        (b"A" * 200_000, 431, "HeadTooLarge"),
        (b"POST / HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 900_000, 413, "BodyTooLarge"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501, "NotImplemented"),
    ],
    ids=["garbage", "long header", "endless line", "long body", "chunked"],
)
@looped
async def test_what_is_too_much_is_refused_by_name(
    tmp_path: Path, sent: bytes, status: int, name: str
) -> None:
    path = tmp_path / "s"
    async with serving(path, reflect), connected(path) as (reader, writer):
        writer.write(sent)
        answer = await read_answer(reader)
        assert (answer.status, answer.document["error"]["name"]) == (status, name)
        # The refusal did not break the server for others.
        assert (await ask(path, "GET", "/")).status == 200


@looped
async def test_one_connection_too_many_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "s"
    done = asyncio.Event()
    asked = asyncio.Event()

    async def slow(request: Request) -> Response:
        asked.set()
        await done.wait()
        return await reflect(request)

    async with serving(path, slow, Limits(connections=1)):
        async with connected(path) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await asked.wait()
            answer = await ask(path, "GET", "/")
            assert (answer.status, answer.document["error"]["name"]) == (503, "TooManyConnections")
            done.set()
            assert (await read_answer(reader)).status == 200

        async def has_room() -> bool:
            try:
                return (await ask(path, "GET", "/")).status == 200
            except OSError:
                # Twice the limit is not even answered, and who was turned away lingers for a moment.
                return False

        while not await has_room():
            await asyncio.sleep(0.005)


@looped
async def test_whoever_waits_longest_gives_way(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with (
        serving(path, reflect, Limits(connections=2)),
        connected(path) as (first, _),
        connected(path) as (second, half),
    ):
        half.write(b"GET / HT")
        assert (await ask(path, "GET", "/")).status == 200
        with pytest.raises((EOFError, ConnectionResetError)):
            await first.readexactly(1)
        half.write(b"TP/1.1\r\n\r\n")
        assert (await read_answer(second)).status == 200, "one place was enough"


@looped
async def test_who_comes_in_the_moment_in_which_all_others_go_finds_room(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving(path, reflect, Limits(connections=8)):
        for turns in range(8):
            crowd = [socket.socket(socket.AF_UNIX) for _ in range(8)]
            for client in crowd:
                client.connect(str(path))
            assert (await ask(path, "GET", "/")).status == 200
            for client in crowd:
                client.close()
            # Each turn of the loop finds the server in another state of letting go.
            for _ in range(turns):
                await asyncio.sleep(0)
            assert (await ask(path, "GET", "/")).status == 200


@looped
async def test_whoever_does_not_take_an_answer_gives_way(tmp_path: Path) -> None:
    path = tmp_path / "s"
    answered = asyncio.Event()

    async def large(request: Request) -> Response:
        answered.set()
        return Response(bytes(8 << 20) if request.path == "/large" else b"{}")

    async with serving(path, large, Limits(connections=1)), connected(path) as (_, writer):
        writer.write(b"GET /large HTTP/1.1\r\n\r\n")
        await answered.wait()
        await asyncio.sleep(0)
        assert (await ask(path, "GET", "/")).status == 200


@looped
async def test_streams_leave_room_for_questions(tmp_path: Path) -> None:
    path = tmp_path / "s"
    gone: list[int] = []

    async def forever(number: int) -> AsyncGenerator[bytes]:
        try:
            yield b"first\n"
            await asyncio.Event().wait()
        finally:
            gone.append(number)

    numbers = itertools.count()

    async def stream(request: Request) -> Response:
        return Response(forever(next(numbers)) if request.path == "/stream" else b"{}")

    async with serving(path, stream, Limits(streams=1)), connected(path) as (reader, writer):
        writer.write(b"GET /stream HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"first\n")
        refused = await ask(path, "GET", "/stream")
        assert (refused.status, refused.document["error"]["name"]) == (503, "TooManyConnections")
        assert (await ask(path, "GET", "/")).status == 200
        # What was refused has let go of what it had, if it had anything.
        assert gone == [1]


@pytest.mark.parametrize(
    ("raised", "status", "name", "message"),
    [
        (HttpError(HTTPStatus.NOT_FOUND, "NotFound", "nothing"), 404, "NotFound", "nothing"),
        (InvalidValue("limit", "x", "a number"), 400, "InvalidValue", "limit: 'x' is not valid"),
        (NotFound("service", "x"), 404, "NotFound", "service 'x' does not exist"),
        (NotPermitted("no"), 403, "NotPermitted", "no"),
        (Conflict("taken"), 409, "Conflict", "taken"),
        (MarchproxyError("broken"), 500, "MarchproxyError", "broken"),
        (ZeroDivisionError("secret"), 500, "InternalError", "the daemon could not answer: ZeroDivisionError"),
    ],
)
@looped
async def test_errors_become_documents(
    tmp_path: Path, raised: Exception, status: int, name: str, message: str
) -> None:
    async def fail(_: Request) -> Response:
        raise raised

    path = tmp_path / "s"
    async with serving(path, fail):
        answer = await ask(path, "GET", "/")
        assert answer.status == status
        assert answer.document["error"]["name"] == name
        assert answer.document["error"]["message"] == message


class Stream:
    """A body that goes on as long as somebody listens."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def pieces(self) -> AsyncGenerator[bytes]:
        try:
            yield b"first\n"
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def handle(self, _: Request) -> Response:
        return Response(self.pieces())


@looped
async def test_a_stream_ends_when_its_reader_goes(tmp_path: Path) -> None:
    stream, path = Stream(), tmp_path / "s"
    async with serving(path, stream.handle):
        async with connected(path) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert (await read_answer(reader, head_only=True)).headers["transfer-encoding"] == "chunked"
            assert await anext(read_chunks(reader)) == b"first\n"
            assert not stream.ended.is_set()
        await stream.ended.wait()


@looped
async def test_a_stream_ends_with_the_server(tmp_path: Path) -> None:
    stream, path = Stream(), tmp_path / "s"
    async with serving(path, stream.handle) as server, connected(path) as (reader, writer):
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await reader.readuntil(b"first\n")).endswith(b"\r\n\r\nfirst\n")
        await server.close()
        assert stream.ended.is_set()
        assert await reader.read() == b""


@looped
async def test_a_reader_that_takes_nothing_is_cut_off(tmp_path: Path) -> None:
    async def endless(_: Request) -> Response:
        async def pieces() -> AsyncGenerator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
            finally:
                ended.set()

        return Response(pieces())

    ended, path = asyncio.Event(), tmp_path / "s"
    async with serving(path, endless, Limits(stall=0.05)), connected(path) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await until(ended.is_set)
        assert (await read_answer(reader, head_only=True)).status == 200
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            async for _ in read_chunks(reader):
                pass
