"""Datagrams and connections to servers that come, go, and do not read."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from marchproxy.model.collector import Collector, parse_syslog
from marchproxy.telemetry.logs import channels
from marchproxy.telemetry.logs.channels import Connection, Datagrams
from marchproxy.telemetry.logs.ipfix import IpfixEncoder
from marchproxy.telemetry.logs.records import LogClass
from marchproxy.telemetry.logs.rfc5424 import SyslogEncoder
from marchproxy.telemetry.logs.sink import Unreachable
from tests.dataplane.loops import looped
from tests.telemetry.logs.certificates import Authority
from tests.telemetry.logs.collecting import Reader
from tests.telemetry.logs.made import ended


def encoder(*, counted: bool) -> SyslogEncoder:
    return SyslogEncoder(frozenset(LogClass), 32473, counted=counted, host="box")


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


class Server:
    """Keeps what connections bring."""

    def __init__(self) -> None:
        self.data = b""
        self.writers: list[asyncio.StreamWriter] = []
        self.reads = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while self.reads and (data := await reader.read(65536)):
            self.data += data

    def drop(self) -> None:
        """Reset every connection."""
        for writer in self.writers:
            own = writer.get_extra_info("socket")
            if own is not None:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            writer.transport.abort()
        self.writers.clear()

    @property
    def ids(self) -> list[int]:
        """Of all records so far."""
        return [int(found) for found in re.findall(rb' id="(\d+)"', self.data)]


@asynccontextmanager
async def serving(port: int = 0, context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Server, int]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", port, ssl=context)
    try:
        yield server, listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        server.drop()


@looped
async def test_each_record_is_a_datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        own = Datagrams(parse_syslog(f"udp://127.0.0.1:{server.getsockname()[1]}"), encoder(counted=False))
        assert await own.send([ended(id=1), ended(id=2)]) == 0
        assert [b' id="%d"' % number in server.recv(4096) for number in (1, 2)] == [True, True]
        await own.close()


@looped
async def test_datagrams_that_a_host_refuses_are_lost_and_counted() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = Datagrams(parse_syslog(f"udp://127.0.0.1:{port}"), encoder(counted=False))
    lost = [await own.send([ended(id=number)]) for number in range(5)]
    # The refusal of each comes with the next one.
    assert lost == [0, 1, 1, 1, 1]
    await own.close()


@looped
async def test_a_collector_that_comes_back_is_told_the_templates_first() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = Datagrams(Collector("udp", "127.0.0.1", port), IpfixEncoder(1, 32473, datagrams=True))
    await own.send([ended()])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", port))
        server.setblocking(False)
        # This one learns of the refusal of the first, and the next begins anew.
        await own.send([ended()])
        await own.send([ended()])
        seen = [server.recv(4096) for _ in range(3)]
        assert any(data[16:18] == b"\0\2" for data in seen)
    await own.close()


@looped
async def test_a_name_that_does_not_resolve_is_said() -> None:
    for made in (
        Datagrams(Collector("udp", "nobody.invalid", 514), encoder(counted=False)),
        Connection(Collector("tcp", "nobody.invalid", 514), encoder(counted=True)),
    ):
        with pytest.raises(Unreachable, match=r"nobody\.invalid:514: "):
            await made.send([ended()])
        await made.close()


@looped
async def test_a_stream_has_counted_messages() -> None:
    async with serving() as (server, port):
        own = Connection(parse_syslog(f"tcp://127.0.0.1:{port}"), encoder(counted=True))
        for first in (1, 3):
            await own.send([ended(id=first), ended(id=first + 1)])
        await until(lambda: server.data.endswith(b"default/web") and len(server.ids) == 4)
        assert server.ids == [1, 2, 3, 4]
        stream = server.data
        while stream:
            length, _, rest = stream.partition(b" ")
            assert rest.startswith(b"<134>1 ")
            stream = rest[int(length) :]
        await own.close()


@looped
async def test_what_a_broken_connection_took_along_is_sent_again() -> None:
    async with serving() as (server, port):
        server.reads = False
        own = Connection(parse_syslog(f"tcp://127.0.0.1:{port}"), encoder(counted=True))
        sent, stuck = 0, False
        while not stuck:
            batch = [ended(id=sent + at) for at in range(1, 65)]
            sending = asyncio.create_task(own.send(batch))
            for _ in range(5):
                # Once may be over before anything was done, where the machine stood still.
                await asyncio.wait({sending}, timeout=0.02)
            stuck = not sending.done()
            sent += 64
        # Its buffer and ours are full. Now it is gone, and comes back in a better mood.
        server.reads = True
        server.drop()
        with pytest.raises(Unreachable):
            await sending
        await own.send(batch)
        while own.unsettled:
            await asyncio.sleep(0.001)
        await until(lambda: server.data.endswith(b"default/web") and sent in server.ids)
        # What was acknowledged before anything was stuck is in the hands of the other host.
        assert set(server.ids) == set(range(min(server.ids), sent + 1))
        assert min(server.ids) < sent - 10 * 64
        await own.close()


@looped
async def test_a_server_that_closes_is_connected_to_again_before_anything_is_lost() -> None:
    async with serving() as (server, port):
        own = Connection(parse_syslog(f"tcp://127.0.0.1:{port}"), encoder(counted=True))
        await own.send([ended(id=1)])
        await until(lambda: server.ids == [1])
        server.writers.pop().close()
        streams = own._streams
        assert streams is not None
        await until(streams[0].at_eof)
        await own.send([ended(id=2)])
        await until(lambda: server.ids == [1, 2])
        await own.close()


@looped
async def test_a_server_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "PATIENCE", 0.2)
    async with serving() as (server, port):
        server.reads = False
        own = Connection(parse_syslog(f"tcp://127.0.0.1:{port}"), encoder(counted=True))

        async def flood() -> None:
            for _ in range(10_000):
                await own.send([ended()] * 64)

        with pytest.raises(Unreachable, match="no answer"):
            await flood()
        assert sum(size for size, _ in own._unconfirmed) < 64 * 2**20
        await own.close()


@looped
async def test_nobody_there_is_said() -> None:
    async with serving() as (_, port):
        pass
    own = Connection(parse_syslog(f"tcp://127.0.0.1:{port}"), encoder(counted=True))
    with pytest.raises(Unreachable, match="Connection refused"):
        await own.send([ended()])
    await own.close()


@looped
async def test_an_ipfix_session_begins_with_templates_each_time() -> None:
    async with serving() as (server, port):
        made = IpfixEncoder(1, 32473, datagrams=False)
        for _ in range(2):
            own = Connection(Collector("tcp", "127.0.0.1", port), made)
            await own.send([ended(), ended()])
            await until(lambda: server.data)
            reader = Reader()
            reader.stream(server.data)
            assert len(reader.records) == 4
            server.data = b""
            await own.close()


def test_tls_checks_certificate_and_name(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "own"), Authority(tmp_path / "other")

    @looped
    async def run() -> None:
        async with serving(context=authority.server("localhost", "127.0.0.1")) as (server, port):
            for host in ("localhost", "127.0.0.1"):
                own = Connection(
                    parse_syslog(f"tls://{host}:{port}"), encoder(counted=True), authority.certificate
                )
                await own.send([ended(id=7)])
                await until(lambda: server.ids == [7])
                server.data = b""
                await own.close()
            strange = Connection(
                parse_syslog(f"tls://127.0.0.1:{port}"), encoder(counted=True), stranger.certificate
            )
            with pytest.raises(Unreachable, match="its certificate is not accepted"):
                await strange.send([ended()])
        async with serving(context=authority.server("another.example")) as (server, port):
            own = Connection(
                parse_syslog(f"tls://127.0.0.1:{port}"), encoder(counted=True), authority.certificate
            )
            with pytest.raises(Unreachable, match="its certificate is not accepted"):
                await own.send([ended()])
            assert server.data == b""

    run()
