"""Carries WebSockets of a client that knows HTTP/1.1 in the clear only: under TLS, over HTTP/2 or HTTP/3.

`python -m conformance.bridge WAY PORT ADDRESS PORT`: listens at the first port of loopback, and goes on to
the second. `tls` changes nothing but TLS. `h2` (RFC 8441) and `h3` (RFC 9220) make an extended CONNECT of
what asks for a WebSocket, and copy what follows, so frames come as the client has made them. No certificate
is verified.
"""

import asyncio
import base64
import hashlib
import ssl
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived as Http3Data
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated as QuicEnded
from aioquic.quic.events import QuicEvent, StreamReset
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
)
from h2.events import StreamReset as Http2Reset

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PIECE = 65_536
_OF_HTTP1 = ("host", "connection", "upgrade", "sec-websocket-key")
"""Fields that an extended CONNECT has none of."""

type Fields = list[tuple[str, str]]


class Far(ABC):
    """One connection to the other side, for one WebSocket."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()
        """Empty: its end."""

    @abstractmethod
    async def ask(self, fields: Fields) -> None:
        """Send the request, once it may be sent."""

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Empty: the end."""

    def over(self) -> None:
        """The connection is gone."""
        if not self.answer.done():
            self.answer.set_exception(ConnectionResetError("the other side is gone"))
        self.incoming.put_nowait(b"")


class Http2(Far):
    """By h2, over a connection under TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__()
        self._reader, self._writer = reader, writer
        self._h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._settled, self._room = asyncio.Event(), asyncio.Event()
        self._reading = asyncio.create_task(self._read())
        self._flush()

    async def ask(self, fields: Fields) -> None:
        """See `Far`."""
        await self._settled.wait()
        if not self._h2.remote_settings.enable_connect_protocol:
            raise ConnectionRefusedError("extended CONNECT is not spoken there")
        self._h2.send_headers(1, fields)
        self._flush()

    async def send(self, data: bytes) -> None:
        """See `Far`."""
        if not data:
            with suppress(Exception):
                self._h2.end_stream(1)
                self._flush()
        while data:
            size = min(self._h2.local_flow_control_window(1), self._h2.max_outbound_frame_size, len(data))
            if size:
                self._h2.send_data(1, data[:size])
                data = data[size:]
                self._flush()
                await self._writer.drain()
            else:
                self._room.clear()
                await self._room.wait()

    def close(self) -> None:
        """End the connection."""
        self._reading.cancel()
        self._writer.close()

    async def _read(self) -> None:
        with suppress(ConnectionError):
            while data := await self._reader.read(_PIECE):
                for event in self._h2.receive_data(data):
                    self._take(event)
                self._flush()
        self.over()

    def _take(self, event: object) -> None:
        match event:
            case RemoteSettingsChanged():
                self._settled.set()
            case ResponseReceived(headers=found):
                self.answer.set_result(cast(Fields, list(found or ())))
            case DataReceived(data=data, flow_controlled_length=length):
                self._h2.acknowledge_received_data(length or 0, 1)
                if data:
                    self.incoming.put_nowait(data)
            case StreamEnded() | Http2Reset() | ConnectionTerminated():
                self.over()
        self._room.set()

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())


class Http3(QuicConnectionProtocol):
    """By aioquic: events of one connection, for the `Far` that it makes."""

    far: "Http3Far"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.http = H3Connection(self._quic)
        self.far = Http3Far(self)

    def quic_event_received(self, event: QuicEvent) -> None:
        """See `QuicConnectionProtocol`."""
        for found in self.http.handle_event(event):
            if isinstance(found, HeadersReceived):
                self.far.answer.set_result([(n.decode(), v.decode()) for n, v in found.headers])
            elif isinstance(found, Http3Data) and found.data:
                self.far.incoming.put_nowait(found.data)
            if getattr(found, "stream_ended", False):
                self.far.over()
        if isinstance(event, StreamReset | QuicEnded):
            self.far.over()


class Http3Far(Far):
    """The first stream of a connection."""

    def __init__(self, protocol: Http3) -> None:
        super().__init__()
        self._protocol = protocol

    async def ask(self, fields: Fields) -> None:
        """See `Far`."""
        self._protocol.http.send_headers(0, [(n.encode(), v.encode()) for n, v in fields])
        self._protocol.transmit()

    async def send(self, data: bytes) -> None:
        """See `Far`."""
        self._protocol.http.send_data(0, data, end_stream=not data)
        self._protocol.transmit()


async def under_tls(
    address: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Bytes both ways."""
    far_reader, far_writer = await asyncio.open_connection(address, port, ssl=_context("http/1.1"))

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(_PIECE):
            sink.write(data)
            await sink.drain()
        sink.close()

    await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))


async def over_http2(
    address: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """A WebSocket on a stream of HTTP/2."""
    far = Http2(*await asyncio.open_connection(address, port, ssl=_context("h2")))
    try:
        await _converse(far, f"{address}:{port}", reader, writer)
    finally:
        far.close()


async def over_http3(
    address: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """A WebSocket on a stream of HTTP/3."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE)
    async with connect(address, port, configuration=configuration, create_protocol=Http3) as protocol:
        await _converse(cast(Http3, protocol).far, f"{address}:{port}", reader, writer)


WAYS = {"tls": under_tls, "h2": over_http2, "h3": over_http3}


async def _converse(
    far: Far, authority: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    line, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    fields = [(name.lower(), value.strip()) for name, _, value in (each.partition(":") for each in rest)]
    asked = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", line.split()[1]),
    ]
    await far.ask([*asked, (":authority", authority), *(each for each in fields if each[0] not in _OF_HTTP1)])
    answer = await far.answer
    writer.write(switched(answer, dict(fields)["sec-websocket-key"]))

    async def up() -> None:
        while data := await reader.read(_PIECE):
            await far.send(data)
        await far.send(b"")

    sending = asyncio.create_task(up())
    while data := await far.incoming.get():
        writer.write(data)
        await writer.drain()
    writer.close()
    sending.cancel()


def switched(answer: Sequence[tuple[str, str]], key: str) -> bytes:
    """What HTTP/1.1 says to the client of an extended CONNECT that was answered so."""
    status = dict(answer)[":status"]
    if status != "200":
        return f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
    accepted = base64.b64encode(hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()).decode()
    chosen = [f"{name}: {value}" for name, value in answer if name.startswith("sec-websocket-")]
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    return "\r\n".join([*lines, f"Sec-WebSocket-Accept: {accepted}", *chosen, "", ""]).encode()


def _context(protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context


async def main(way: str, port: str, address: str, far_port: str) -> None:
    """Until it is killed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            await WAYS[way](address, int(far_port), reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", int(port))
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(partial(main, *sys.argv[1:])())
