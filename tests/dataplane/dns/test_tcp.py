"""Questions over TCP: several on a connection, slow ones, strange ones, too many connections."""

import asyncio
import socket
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.dns import tcp as module
from marchproxy.dataplane.dns.tcp import TcpServer
from marchproxy.model.address import IPAddress
from tests.dataplane.loops import looped, until

QUESTION = b"twelve bytes"


async def echo(wire: bytes, client: IPAddress, limit: int) -> bytes | None:
    return None if wire.startswith(b"silence") else wire + f"{client} {limit}".encode()


async def serve() -> tuple[TcpServer, int]:
    server = TcpServer(echo)
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    await server.start(sock)
    return server, port


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, question: bytes = QUESTION
) -> bytes:
    writer.write(len(question).to_bytes(2) + question)
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))


@looped
async def test_several_questions_on_one_connection() -> None:
    server, port = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(3):
        question = QUESTION + bytes([number])
        assert await ask(reader, writer, question) == question + b"127.0.0.1 65535"
    writer.close()
    await server.close()


@pytest.mark.parametrize("data", [b"\0\0", b"\0\x0bshort", b"\0\x14silence please, now ."])
@looped
async def test_what_gets_no_answer_ends_the_connection(data: bytes) -> None:
    server, port = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    with pytest.raises((ConnectionError, EOFError)):
        await reader.readexactly(1)
    writer.close()
    await server.close()


@looped
async def test_who_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE", 0.02)
    server, port = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\0")
    with pytest.raises((ConnectionError, EOFError)):
        await reader.readexactly(1)
    writer.close()
    await server.close()


@looped
async def test_one_client_may_not_have_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OF_ONE_CLIENT", 2)
    server, port = await serve()
    kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    for reader, writer in kept:
        assert await ask(reader, writer)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with pytest.raises((ConnectionError, EOFError)):
        await ask(reader, writer)
    writer.close()
    other = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
    assert (await ask(*other)).endswith(b"127.0.0.2 65535")
    for _, each in (*kept, other):
        each.close()
    await until(lambda: not server._clients)
    again = await asyncio.open_connection("127.0.0.1", port)
    assert await ask(*again)
    again[1].close()
    await server.close()
    assert ip_address("127.0.0.1") not in server._clients
