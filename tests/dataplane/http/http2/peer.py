"""Clients of HTTP/2 that say what they like."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from tests.dataplane.proxy.peers import dial

type Raw = list[tuple[str, str]]


@dataclass
class Heard:
    """What came on a stream."""

    fields: dict[str, str] = field(default_factory=dict)
    interim: list[str] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: dict[str, str] = field(default_factory=dict)
    over: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """Of the answer."""
        return int(self.fields.get(":status", "0"))


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.streams: defaultdict[int, Heard] = defaultdict(Heard)
        self.farewells: list[ConnectionTerminated] = []
        self.takes = True
        """It opens windows for what it has read."""
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding="latin-1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.h2.initiate_connection()

    def ask(self, path: str = "/here", /, *more: tuple[str, str], ends: bool = True, **pseudo: str) -> int:
        """Send a head; returns the number of its stream."""
        names = {"method": "GET", "scheme": "http", "authority": "h.example", "path": path, **pseudo}
        number = self.h2.get_next_available_stream_id()
        fields = [(f":{name}", value) for name, value in names.items()]
        self.h2.send_headers(number, [*fields, *more], end_stream=ends)
        self.flush()
        return number

    def send(self, number: int, data: bytes, *, ends: bool = False) -> None:
        """Send a piece of a body that fits into the window."""
        for start in range(0, len(data), 16_384):
            piece = data[start : start + 16_384]
            self.h2.send_data(number, piece, end_stream=ends and start + 16_384 >= len(data))
        if ends and not data:
            self.h2.end_stream(number)
        self.flush()

    def flush(self) -> None:
        """Write what there is to say."""
        self.writer.write(self.h2.data_to_send())

    async def read(self) -> list[Any]:
        """Read once; the events."""
        data = await self.reader.read(65_536)
        if not data:
            raise EOFError
        events = self.h2.receive_data(data)
        for event in events:
            self._take(event)
        self.flush()
        return events

    async def hear(self, number: int) -> Heard:
        """The answer on a stream, once it is complete."""
        heard = self.streams[number]
        while not heard.over:
            await self.read()
        return heard

    async def heard(self, number: int) -> Heard:
        """The same once its head has come."""
        while not self.streams[number].fields:
            await self.read()
        return self.streams[number]

    async def settled(self) -> None:
        """Until the other end has read all that was sent."""
        self.h2.ping(b"settled?")
        self.flush()
        while not any(isinstance(event, PingAckReceived) for event in await self.read()):
            pass

    async def goodbye(self) -> list[ConnectionTerminated]:
        """Read until the connection ends; every GOAWAY that came."""
        try:
            while True:
                await self.read()
        except (EOFError, ConnectionError):
            return self.farewells

    def _take(self, event: Any) -> None:
        match event:
            case ResponseReceived():
                self.streams[event.stream_id].fields = dict(event.headers)  # type: ignore[arg-type]
            case InformationalResponseReceived():
                self.streams[event.stream_id].interim.append(str(dict(event.headers)[":status"]))  # type: ignore[index]
            case DataReceived():
                self.streams[event.stream_id].body += event.data
                if self.takes:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case TrailersReceived():
                self.streams[event.stream_id].trailers = dict(event.headers)  # type: ignore[arg-type]
            case StreamEnded():
                self.streams[event.stream_id].over = True
            case StreamReset():
                heard = self.streams[event.stream_id]
                if not heard.over:
                    heard.reset = int(event.error_code)
                heard.over = True
            case ConnectionTerminated():
                self.farewells.append(event)


@asynccontextmanager
async def client(port: int, source: str = "127.0.0.1") -> AsyncGenerator[Client]:
    """One that knows without asking."""
    async with dial(port, source=source) as (reader, writer):
        made = Client(reader, writer)
        made.flush()
        yield made


def codes(farewells: list[ConnectionTerminated]) -> list[ErrorCodes]:
    """Why a connection was ended."""
    return [ErrorCodes(each.error_code or 0) for each in farewells]
