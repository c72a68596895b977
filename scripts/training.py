"""What `scripts/cpython.sh` has the interpreter do for its profile.

CPython's own training has no sockets, no TLS, no event loop and no ctypes in it, and what a profile has never
seen is compiled to be small. This is its own training, and then what an appliance does all day.
Only the standard library, and files of CPython's source tree, in which it runs.
"""

import asyncio
import ctypes
import json
import runpy
import select
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum, auto
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final

SECONDS: Final = 4.0
"""For each kind of work. The instrumented interpreter is slow, and a profile needs no more."""
REQUEST: Final = (
    b"GET /some/where?a=b HTTP/1.1\r\nHost: service.example\r\nAccept: */*\r\nX-Some: thing\r\n\r\n"
)
ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nContent-Type: text/plain\r\n\r\nhello, world\n"
STARTED: Final = (
    "import asyncio, ctypes, dataclasses, enum, ipaddress, json, logging, socket, sqlite3, ssl, typing"
)


class Verdict(Enum):
    """As of a policy."""

    ALLOW = auto()
    DENY = auto()


@dataclass(frozen=True, slots=True)
class Query:
    """Who asks for what."""

    source: IPv4Address | IPv6Address
    port: int
    name: str = ""


def fields_of(head: bytes) -> dict[str, str]:
    """A head of HTTP/1.1, read."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, version = first.split(" ", 2)
    fields = {"method": method, "target": target, "version": version}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    return fields


def judge(query: Query, nets: list[tuple[int, int]]) -> Verdict:
    """Whether it is in one of the networks."""
    match query:
        case Query(port=80 | 443):
            number = int(query.source)
            found = any(number & mask == net for net, mask in nets)
            return Verdict.ALLOW if found else Verdict.DENY
        case _:
            return Verdict.DENY


def decisions() -> None:
    """Reading, looking up, writing down."""
    nets = [
        (int(each.network_address), int(each.netmask))
        for each in (ip_network(f"10.{number}.0.0/16") for number in range(8))
    ]
    layout, counts = struct.Struct("!16s16sHHB3x"), dict.fromkeys(Verdict, 0)
    for port in range(200):
        fields = fields_of(REQUEST)
        query = replace(Query(ip_address(f"10.{port % 12}.0.{port}"), 443), name=fields["host"])
        counts[judge(query, nets)] += 1
        packed = layout.pack(query.source.packed.rjust(16, b"\0"), bytes(16), port, query.port, 6)
        line = {"name": query.name, "counts": [each.name for each in counts], "key": packed.hex()}
        json.loads(json.dumps(line))


def system_calls() -> None:
    """Sockets without an event loop, epoll, and functions of C."""
    identity = ctypes.CDLL(None).getpid
    with socket.create_server(("127.0.0.1", 0)) as server, select.epoll() as poll:
        for _ in range(20):
            with socket.socket() as client:
                client.setblocking(False)
                with suppress(BlockingIOError):
                    client.connect(server.getsockname())
                taken, _peer = server.accept()
                with taken:
                    poll.register(client.fileno(), select.EPOLLIN)
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
                    with suppress(BlockingIOError):
                        client.recv(8192)
                    taken.send(memoryview(ANSWER))
                    for descriptor, _events in poll.poll(1):
                        poll.modify(descriptor, select.EPOLLIN | select.EPOLLOUT)
                    client.recv(8192)
                    poll.unregister(client.fileno())
            ctypes.byref(ctypes.c_uint32(identity()))


def handshakes() -> None:
    """Full ones of TLS and resumed ones, over memory."""
    found = Path(ssl.__file__).parent / "test" / "certdata" / "keycert.pem"
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(found)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    session: ssl.SSLSession | None = None
    for _ in range(6):
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = server.wrap_bio(there, back, server_side=True)
        theirs = client.wrap_bio(back, there, server_hostname="localhost", session=session)
        for side in (theirs, ours, theirs, ours):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
        for _ in range(20):
            theirs.write(REQUEST)
            ours.write(ANSWER if ours.read(8192) else b"")
            theirs.read(8192)
        session = theirs.session


class _Server(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        fields_of(data)
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.write(ANSWER)


async def _conversation(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(20):
        async with asyncio.timeout(10):
            writer.write(REQUEST)
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(13)
    writer.close()
    await writer.wait_closed()


async def _conversations() -> None:
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.gather(*(_conversation(port) for _ in range(8)))


def loops() -> None:
    """An event loop with tasks, futures and deadlines."""
    asyncio.run(_conversations())


def starts() -> None:
    """The imports of a command."""
    subprocess.run([sys.executable, "-c", STARTED], check=True)


def repeat(work: Callable[[], None]) -> None:
    """For as long as the profile needs."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        work()


def main() -> int:
    """CPython's training, whose failures are nobody's here (without a network it has some), and ours."""
    sys.argv = ["test", "--pgo"]
    with suppress(SystemExit):
        runpy.run_module("test", run_name="__main__")
    for work in (decisions, system_calls, handshakes, loops, starts):
        repeat(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
