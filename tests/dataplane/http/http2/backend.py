"""A backend that speaks HTTP/2 and does what it was told to."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, TrailersReceived
from h2.settings import SettingCodes, Settings

from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.policy.plan import Plan
from tests.dataplane.admission.desk import Desk, desk
from tests.dataplane.http.site import LAN, QUICK
from tests.dataplane.proxy.peers import tcp_server
from tests.policy import build
from tests.policy.build import mapping, service


class Session:
    """One connection that has come."""

    def __init__(
        self, backend: "Backend2", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.backend, self.reader, self.writer = backend, reader, writer
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
        if backend.most is not None:
            most = {SettingCodes.MAX_CONCURRENT_STREAMS: backend.most}
            self.h2.local_settings = Settings(client=False, initial_values=most)
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Write what there is to say."""
        self.writer.write(self.h2.data_to_send())

    def answer(self, number: int, body: bytes = b"hello", *more: tuple[str, str], **trailers: str) -> None:
        """Answer in one piece."""
        self.h2.send_headers(number, [(":status", "200"), *more])
        self.h2.send_data(number, body, end_stream=not trailers)
        if trailers:
            fields = [(name.replace("_", "-"), value) for name, value in trailers.items()]
            self.h2.send_headers(number, fields, end_stream=True)
        self.flush()

    async def run(self) -> None:
        """Until the other end is gone."""
        while data := await self.reader.read(65_536):
            for event in self.h2.receive_data(data):
                self.take(event)
            self.flush()

    def take(self, event: Any) -> None:
        """Hear something."""
        backend = self.backend
        match event:
            case RequestReceived():
                backend.heads[event.stream_id, self] = dict(event.headers)
                backend.asked.append(dict(event.headers))  # type: ignore[arg-type]
                backend.bodies[event.stream_id, self] = bytearray()
            case DataReceived():
                backend.bodies[event.stream_id, self] += event.data
                if backend.takes:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case TrailersReceived():
                backend.trailers.append(dict(event.headers))  # type: ignore[arg-type]
            case StreamEnded():
                backend.on_end(self, event.stream_id)
            case StreamReset():
                backend.resets.append(int(event.error_code))


class Backend2:
    """The backend."""

    def __init__(self, on_end: Callable[[Session, int], None]) -> None:
        self.on_end = on_end
        """Called when a request is complete."""
        self.sessions: list[Session] = []
        self.asked: list[dict[str, str]] = []
        self.heads: dict[tuple[int, Session], Any] = {}
        self.bodies: dict[tuple[int, Session], bytearray] = {}
        self.trailers: list[dict[str, str]] = []
        self.resets: list[int] = []
        self.most: int | None = None
        self.takes = True
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        session = Session(self, reader, writer)
        self.sessions.append(session)
        with suppress(ConnectionError):
            await session.run()
        writer.close()


def routed2(at: Desk, port: int, protocol: str = "grpc", **fields: Any) -> Plan:
    """A plan by which everything below /here goes on by HTTP/2."""
    web = service("web", "127.0.0.2", port=port)
    fields.setdefault("path_prefix", "/here")
    return build.plan(LAN, web, mapping("calls", "lan", "web", f"127.0.0.1:{at.port}", protocol, **fields))


@asynccontextmanager
async def served2(
    on_end: Callable[[Session, int], None] = Session.answer,
    *,
    limits: Any = QUICK,
    contexts: Contexts | None = None,
    most: int | None = None,
    **fields: Any,
) -> AsyncGenerator[tuple[Desk, Backend2]]:
    """A desk whose port leads to a backend that speaks HTTP/2."""
    backend = Backend2(on_end)
    backend.most = most
    async with (
        tcp_server(backend.serve, "127.0.0.2") as backend.port,
        desk(limits=limits, contexts=contexts) as at,
    ):
        at.apply(routed2(at, backend.port, **fields))
        yield at, backend
