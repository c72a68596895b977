"""Clients of a Unix socket: well-behaved, and not."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from marchproxy.dataplane.control.server import Handler, HttpServer, Limits


class Answer(NamedTuple):
    """A response, its body with chunks put together."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@asynccontextmanager
async def serving(path: Path, handler: Handler, limits: Limits | None = None) -> AsyncGenerator[HttpServer]:
    """A server on a Unix socket."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(128)
    listening.setblocking(False)
    server = HttpServer("test", handler, limits=limits)
    await server.start(listening)
    try:
        yield server
    finally:
        await server.close()


async def read_answer(reader: asyncio.StreamReader, *, head_only: bool = False) -> Answer:
    """One response. Raises `IncompleteReadError` where the server just closes."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = head.split("\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    status = int(lines[0].split()[1])
    if head_only:
        return Answer(status, headers, b"")
    if headers.get("transfer-encoding") == "chunked":
        return Answer(status, headers, b"".join([chunk async for chunk in read_chunks(reader)]))
    if "content-length" in headers:
        return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))
    return Answer(status, headers, await reader.read())


async def read_chunks(reader: asyncio.StreamReader) -> AsyncGenerator[bytes]:
    """The chunks of a body, as they come."""
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n"


@asynccontextmanager
async def connected(path: Path) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the socket."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(path: Path, method: str, target: str, body: object = None) -> Answer:
    """One request on a connection of its own."""
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"{method} {target} HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n"
    async with connected(path) as (reader, writer):
        writer.write(head.encode() + content)
        return await read_answer(reader)
