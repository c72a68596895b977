"""HTTP listeners at work on loopback, between a client that says what it likes and a backend that does."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.http.client import ClientConnection
from marchproxy.policy.plan import Plan
from tests.dataplane.admission.desk import LIMITS, Desk, desk
from tests.dataplane.proxy.peers import dial, tcp_server
from tests.policy import build
from tests.policy.build import mapping, service

type Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What a backend does with a connection."""

LAN = service("lan", "127.0.0.1")
QUICK = replace(LIMITS, head=0.6, keepalive=0.8, sending=0.8, silence=0.6)


class Backend:
    """One that hears requests and says what it was told to."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        """One for each request, and the last one for all that follow."""
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until the other end is gone, or `Connection: close` was said."""
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.heads.append(head)
                self.bodies.append(await read_body(reader, head))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                writer.write(answer)
                await writer.drain()
                if b"connection: close" in answer.lower() or b"HTTP/1.0" in answer:
                    break
        writer.close()

    def said(self, name: str, index: int = -1) -> str | None:
        """The value of a field of a request that came."""
        for line in self.heads[index].split("\r\n")[1:]:
            field, _, value = line.partition(": ")
            if field.lower() == name:
                return value
        return None


async def read_body(reader: asyncio.StreamReader, head: str) -> bytes:
    """The body behind a head, without chunks."""
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if fields.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        while await reader.readline() != b"\r\n":
            pass
        return body
    return await reader.readexactly(int(fields.get("content-length", "0")))


def answer(body: bytes = b"hello", status: str = "200 OK", *fields: str) -> bytes:
    """An answer with Content-Length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def routed(at: Desk, port: int, *more: Any, host: str | None = None, path: str = "/", **fields: Any) -> Plan:
    """A plan with a listener that reads HTTP, in the place of the explicit proxy."""
    web = service("web", "127.0.0.2", port=port)
    made = mapping(
        "www", "lan", "web", f"127.0.0.1:{at.port}", "http", host=host, path_prefix=path + "here", **fields
    )
    return build.plan(LAN, web, made, *more)


@asynccontextmanager
async def served(
    *answers: bytes,
    serve: Serve | None = None,
    limits: Any = QUICK,
    contexts: Contexts | None = None,
    **fields: Any,
) -> AsyncGenerator[tuple[Desk, Backend]]:
    """A desk whose port leads to a backend with these answers, for every path below /here."""
    backend = Backend(*answers)
    async with (
        tcp_server(serve or backend.serve, "127.0.0.2") as backend.port,
        desk(limits=limits, contexts=contexts) as at,
    ):
        at.apply(routed(at, backend.port, **fields))
        yield at, backend


async def response(reader: asyncio.StreamReader, method: str = "GET") -> tuple[str, bytes]:
    """Head and body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status = head.split(" ", 2)[1]
    if method == "HEAD" or status[0] == "1" or status in ("204", "304"):
        return head, b""
    lowered = head.lower()
    if "content-length:" not in lowered and "chunked" not in lowered:
        return head, await reader.read()
    return head, await read_body(reader, head)


async def ask(at: Desk, request: bytes, count: int = 1) -> list[tuple[str, bytes]]:
    """Say something, and hear so many answers."""
    method = request.split(b" ", 1)[0].decode("latin-1")
    async with dial(at.port) as (reader, writer):
        writer.write(request)
        return [await response(reader, method) for _ in range(count)]


def only(at: Desk) -> ClientConnection:
    """The one connection of HTTP/1.1 that there is."""
    [connection] = at.admission._reads_http().live
    assert isinstance(connection, ClientConnection)
    return connection


def get(path: str = "/here", host: str = "h.example", *fields: str, version: str = "1.1") -> bytes:
    """A request without body."""
    return "\r\n".join([f"GET {path} HTTP/{version}", f"Host: {host}", *fields, "", ""]).encode()


def said(head: str, name: str) -> list[str]:
    """All values of a field of an answer."""
    pairs = (line.partition(": ") for line in head.split("\r\n")[1:])
    return [value for field, _, value in pairs if field.lower() == name]
