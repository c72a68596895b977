"""What stands on both sides of the appliance: servers, clients, and the tier between them."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from marchproxy.dataplane.proxy.tcp import TcpLimits
from marchproxy.dataplane.proxy.tier import SocketsTier
from marchproxy.dataplane.proxy.udp import UdpLimits
from marchproxy.dataplane.records import Event
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Plan

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
type Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody had a moment ago; the kernel gives out others before it comes back to this one."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, until it ends."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def says(word: bytes) -> Serve:
    """Say one word and close."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(word)

    return serve


@asynccontextmanager
async def tcp_server(serve: Serve, address: str = "127.0.0.1") -> AsyncGenerator[int]:
    """A server; yields its port. A connection is closed when `serve` returns."""
    tasks = Tasks()
    writers: set[asyncio.StreamWriter] = set()

    def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        tasks.start(answer(reader, writer), name="peer")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()
            writers.discard(writer)

    # A plain function: until 3.12.2 asyncio reports every cancelled connection of a coroutine as an error.
    server = await asyncio.start_server(meet, address, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await tasks.stop()
        # A task that is cancelled before its first step never comes to its end.
        for writer in writers:
            writer.close()


@asynccontextmanager
async def dial(port: int, address: str = "127.0.0.1", source: str | None = None) -> AsyncGenerator[Streams]:
    """A client's connection."""
    local = (source, 0) if source else None
    reader, writer = await asyncio.open_connection(address, port, local_addr=local)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(port: int, source: str | None = None) -> bytes:
    """Everything a server says by itself; raises `ConnectionResetError` if it ends with RST."""
    async with dial(port, source=source) as (reader, _):
        return await reader.read()


class Appliance:
    """A tier with a plan, and what it reported."""

    def __init__(self, tier: SocketsTier) -> None:
        self.tier = tier
        self.events: list[Event] = []

    def reasons(self) -> list[tuple[str, str]]:
        """Kind and reason of every event so far."""
        return [(event.kind.value, event.decision.reason.name) for event in self.events]

    def packets(self, reason: Reason) -> int:
        """The counter of a reason."""
        counted = self.tier.counters().get(reason)
        return counted.packets if counted else 0


@asynccontextmanager
async def appliance(
    plan: Plan, *, tcp: TcpLimits | None = None, udp: UdpLimits | None = None
) -> AsyncGenerator[Appliance]:
    """A running sockets tier."""
    running = Appliance(SocketsTier(tcp=tcp, udp=udp))
    await running.tier.start(running.events.append)
    try:
        await running.tier.apply(plan, 1)
        yield running
    finally:
        await running.tier.close()
