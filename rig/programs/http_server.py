"""HTTP/1.1 with keep-alive.

`GET /bytes/N` answers with N bytes of `rig.payload`, `POST` to any path with the SHA-256 of what was sent,
and any other `GET` with who was seen: `client 10.2.0.1, server 10.2.0.2`; under `/status/N` with that status.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping

from rig.payload import payload
from rig.programs.listening import serve

CHUNK = 1 << 18

type Headers = Mapping[str, str]


async def read_request(reader: asyncio.StreamReader) -> tuple[str, str, Headers] | None:
    """Method, path and headers (names in lower case) of the next request; None where the client closed."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    request, *lines = head.strip().split("\r\n")
    method, path, _version = request.split(" ")
    fields = (line.partition(":") for line in lines)
    return method, path, {name.lower(): value.strip() for name, _, value in fields}


async def hash_body(reader: asyncio.StreamReader, size: int) -> bytes:
    """The SHA-256 of the request's body, read without holding it."""
    hasher = hashlib.sha256()
    while size > 0:
        data = await reader.read(min(size, CHUNK))
        if not data:
            raise ConnectionResetError("the body ended early")
        hasher.update(data)
        size -= len(data)
    return hasher.hexdigest().encode()


def seen(writer: asyncio.StreamWriter) -> bytes:
    """Between which addresses this connection runs, as the server sees it."""
    client, server = (writer.get_extra_info(name)[0] for name in ("peername", "sockname"))
    return f"client {client}, server {server}\n".encode()


async def answer(
    method: str, path: str, headers: Headers, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[int, Iterable[bytes]]:
    """Length and pieces of the answer's body."""
    if method == "POST":
        body = await hash_body(reader, int(headers.get("content-length", "0")))
    elif path.startswith("/bytes/"):
        size = int(path.removeprefix("/bytes/"))
        return size, payload(size)
    else:
        body = seen(writer)
    return len(body), [body]


def head(path: str, size: int, keep: bool) -> bytes:
    """The head of every answer."""
    connection = "keep-alive" if keep else "close"
    status = path.removeprefix("/status/") if path.startswith("/status/") else "200"
    return f"HTTP/1.1 {status} OK\r\nContent-Length: {size}\r\nConnection: {connection}\r\n\r\n".encode()


async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Requests of one connection, one after the other."""
    try:
        while request := await read_request(reader):
            method, path, headers = request
            keep = headers.get("connection", "").lower() != "close"
            size, pieces = await answer(method, path, headers, reader, writer)
            writer.write(head(path, size, keep))
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if not keep:
                break
    except ConnectionError:
        pass  # The client gave up; there is nobody to tell.
    finally:
        writer.close()


async def listen(address: str, port: int) -> object:
    """Serve on one address."""
    return await asyncio.start_server(serve_connection, address, port, backlog=4096)


if __name__ == "__main__":
    serve(__doc__ or "", listen)
