"""A client of HTTP/3: aioquic's, over a UDP socket of its own that a test may replace or look into."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent, StreamReset
from aioquic.tls import SessionTicket

from tests.certificates import authority
from tests.dataplane.loops import PATIENCE


@dataclass
class Answered:
    """What came of a request."""

    status: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    trailers: dict[str, str] = field(default_factory=dict)
    interim: list[int] = field(default_factory=list)
    reset: int | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def body(self) -> bytes:
        """What has come of it."""
        return b"".join(self.pieces)


class Http3Client:
    """One connection."""

    def __init__(self, port: int, name: str, address: str, own: str = "", ca: str = "", **more: Any) -> None:
        """`own`: where it sends from; `ca`: whom it trusts, in PEM."""
        trusted = (ca or authority().chain).encode()
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=["h3"], server_name=name, cadata=trusted, **more
        )
        self.tickets: list[SessionTicket] = []
        """Of sessions that it could go on with."""
        self.quic = QuicConnection(configuration=configuration, session_ticket_handler=self.tickets.append)
        self.h3: H3Connection
        self.answers: dict[int, Answered] = {}
        self.events: list[QuicEvent] = []
        self.ended: ConnectionTerminated | None = None
        self.ready = asyncio.Event()
        self.gone = asyncio.Event()
        self.server = (address, port)
        self.received: list[bytes] = []
        """Datagrams as they came."""
        self.reads = True
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.socket = self._bind(own or ("::1" if ":" in address else "127.0.0.1"))

    def _bind(self, address: str) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((address, 0))
        self._loop.add_reader(sock, self._readable)
        return sock

    def rebind(self, address: str = "127.0.0.1") -> None:
        """Go on from another port, or address."""
        self._loop.remove_reader(self.socket)
        self.socket.close()
        self.socket = self._bind(address)

    async def connect(self) -> None:
        """Until the handshake is complete, or refused."""
        self.quic.connect(self.server, self._loop.time())
        self.flush()
        async with asyncio.timeout(PATIENCE):
            await self.ready.wait()

    def hasten(self) -> None:
        """Begin with what is asked next, in early data; needs a session that may."""
        self.quic.connect(self.server, self._loop.time())
        self.h3 = H3Connection(self.quic)

    def listen(self, *, hears: bool) -> None:
        """Whether what comes is read, for as long as nothing else is said."""
        if hears:
            self._loop.add_reader(self.socket, self._readable)
        else:
            self._loop.remove_reader(self.socket)

    def flush(self) -> None:
        """Send what there is to send."""
        for data, _ in self.quic.datagrams_to_send(self._loop.time()):
            try:
                self.socket.sendto(data, self.server)
            except OSError:
                break
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.quic.get_timer()
        if at is not None:
            self._timer = self._loop.call_at(at, self._due)

    def ask(
        self,
        path: str = "/here",
        method: str = "GET",
        host: str = "proxy.example",
        *fields: tuple[str, str],
        body: bytes | None = b"",
        trailers: tuple[tuple[str, str], ...] = (),
    ) -> int:
        """Say a request; `body` None: it follows."""
        head = [(":method", method), (":scheme", "https"), (":authority", host), (":path", path), *fields]
        return self.say(head, body=body, trailers=trailers)

    def say(
        self,
        head: list[tuple[str, str]],
        *,
        body: bytes | None = b"",
        trailers: tuple[tuple[str, str], ...] = (),
    ) -> int:
        """Say any head."""
        number = self.quic.get_next_available_stream_id()
        self.answers[number] = Answered()
        self.h3.send_headers(number, _raw(head), end_stream=body == b"" and not trailers)
        if body:
            self.h3.send_data(number, body, end_stream=not trailers)
        if trailers:
            self.h3.send_headers(number, _raw(trailers), end_stream=True)
        self.flush()
        return number

    def more(self, number: int, data: bytes, *, ends: bool = False) -> None:
        """Say more of a body."""
        self.h3.send_data(number, data, end_stream=ends)
        self.flush()

    async def answer(self, number: int, seconds: float = PATIENCE) -> Answered:
        """Wait for what comes of a request."""
        async with asyncio.timeout(seconds):
            await self.answers[number].done.wait()
        return self.answers[number]

    async def get(
        self, path: str = "/here", host: str = "proxy.example", *fields: tuple[str, str]
    ) -> Answered:
        """A whole request."""
        return await self.answer(self.ask(path, "GET", host, *fields))

    async def end(self) -> ConnectionTerminated:
        """Wait until it has ended; how."""
        async with asyncio.timeout(PATIENCE):
            await self.gone.wait()
        assert self.ended is not None
        return self.ended

    def close(self) -> None:
        """End it."""
        self.quic.close()
        self.flush()
        self.stop()

    def stop(self) -> None:
        """Disappear."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.socket.fileno() >= 0:
            self._loop.remove_reader(self.socket)
            self.socket.close()

    def _due(self) -> None:
        self._timer = None
        self.quic.handle_timer(self._loop.time())
        self._hear()
        self.flush()

    def _readable(self) -> None:
        for _ in range(64):
            try:
                data = self.socket.recv(65536)
            except OSError:
                break
            self.received.append(data)
            self.quic.receive_datagram(data, self.server, self._loop.time())
            self._hear()
        self.flush()

    def _hear(self) -> None:
        while (event := self.quic.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, HandshakeCompleted):
                if not hasattr(self, "h3"):
                    self.h3 = H3Connection(self.quic)
                self.ready.set()
            elif isinstance(event, ConnectionTerminated):
                self.ended = event
                self.ready.set()
                self.gone.set()
                for each in self.answers.values():
                    each.done.set()
            elif isinstance(event, StreamReset) and event.stream_id in self.answers:
                self.answers[event.stream_id].reset = event.error_code
                self.answers[event.stream_id].done.set()
            if hasattr(self, "h3"):
                for each_event in self.h3.handle_event(event):
                    self._take(each_event)

    def _take(self, event: Any) -> None:
        answer = self.answers.get(event.stream_id)
        if answer is None:
            return
        if isinstance(event, HeadersReceived):
            fields = {name.decode(): value.decode("latin-1") for name, value in event.headers}
            status = int(fields.pop(":status", "0"))
            if 100 <= status < 200:
                answer.interim.append(status)
                return
            if status:
                answer.status, answer.fields = status, fields
            else:
                answer.trailers = fields
        elif isinstance(event, DataReceived):
            answer.pieces.append(event.data)
        if event.stream_ended:
            answer.done.set()


def _raw(fields: Any) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]


@asynccontextmanager
async def http3(
    port: int, name: str = "proxy.example", address: str = "127.0.0.1", **more: Any
) -> AsyncGenerator[Http3Client]:
    """A connection that stands."""
    client = Http3Client(port, name, address, **more)
    try:
        await client.connect()
        yield client
    finally:
        client.close()
