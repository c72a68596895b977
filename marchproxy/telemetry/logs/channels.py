"""Ways to a server: datagrams, and connections with or without TLS. Both speak what an encoder makes."""

import asyncio
import errno
import fcntl
import os
import socket
import ssl
import struct
import termios
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from marchproxy.model.collector import Collector
from marchproxy.telemetry.logs.records import Record
from marchproxy.telemetry.logs.sink import Unreachable

PATIENCE = 10.0
"""Seconds for a connection to be made, and for a server to take what is written."""
RESOLVE = 300.0
"""Seconds after which a name is asked for again where there is no connection that would break."""
BATCH = 64
"""Records of one write: a millisecond of formatting."""
CLOSING = 1.0
"""Seconds for what is on its way when the sink ends."""
_FULL = 0.01
"""Seconds until a full send buffer is tried again."""


class Encoder(Protocol):
    """Makes messages of records."""

    def begin(self) -> None:
        """What comes next is the first on a new connection."""

    def encode(self, records: Sequence[Record]) -> Iterator[tuple[bytes, int]]:
        """Each message, and how many records it holds."""


class Datagrams:
    """A `Delivery` by UDP, where only the host's refusal says that something is lost."""

    most = BATCH
    linger = 0.0

    def __init__(self, collector: Collector, encoder: Encoder) -> None:
        self._collector = collector
        self._encoder = encoder
        self._socket: socket.socket | None = None
        self._opened = 0.0
        self._last = 0

    async def send(self, records: Sequence[Record]) -> int:
        """See `Delivery`."""
        lost = 0
        own = await self._ready()
        some_left = False
        # One by one: what is refused changes how the next ones are encoded.
        messages = iter(self._encoder.encode(records))
        for message, count in messages:
            try:
                own.send(message)
                self._last = count
            except OSError as error:
                try:
                    lost += await self._put(own, message, count, error)
                except Unreachable:
                    if not some_left:
                        raise
                    # Some have left, and must not leave twice: the others are lost.
                    return lost + count + sum(count for _, count in messages)
            some_left = True
        return lost

    @property
    def held(self) -> int:
        """See `Delivery`."""
        return 0

    @property
    def unsettled(self) -> bool:
        """See `Delivery`. Nobody confirms a datagram."""
        return False

    async def close(self) -> int:
        """See `Delivery`."""
        if self._socket:
            self._socket.close()
        self._socket = None
        return 0

    async def _ready(self) -> socket.socket:
        now = asyncio.get_running_loop().time()
        named = isinstance(self._collector.host, str)
        if self._socket and not (named and now - self._opened >= RESOLVE):
            return self._socket
        await self.close()
        try:
            family, address = await _resolve(self._collector, socket.SOCK_DGRAM)
            own = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                own.connect(address)
            except OSError:
                own.close()
                raise
        except OSError as error:
            raise Unreachable(_why(self._collector, error)) from error
        self._socket, self._opened, self._last = own, now, 0
        self._encoder.begin()
        return own

    async def _put(self, own: socket.socket, message: bytes, count: int, error: OSError) -> int:
        """Send one that has met `error`; how many records are lost, of this one or of the one before."""
        lost, until = 0, asyncio.get_running_loop().time() + PATIENCE
        while True:
            if isinstance(error, ConnectionRefusedError):
                # The answer to an earlier datagram: nobody listens there, and this one has not left.
                lost, self._last = lost + self._last, 0
                self._encoder.begin()
            elif isinstance(error, BlockingIOError | InterruptedError):
                if asyncio.get_running_loop().time() >= until:
                    return lost + count
                await asyncio.sleep(_FULL)
            elif error.errno == errno.EMSGSIZE:
                return lost + count
            else:
                await self.close()
                raise Unreachable(_why(self._collector, error)) from error
            try:
                own.send(message)
            except OSError as another:
                error = another
            else:
                self._last = count
                return lost


class Connection:
    """A `Delivery` by TCP or TLS.

    What a broken connection took along is sent again on the next one: batches are kept until the other host
    has acknowledged everything. A server may get some records twice, and misses none that it never got.
    """

    most = BATCH
    linger = 0.0

    def __init__(self, collector: Collector, encoder: Encoder, certificates: str = "") -> None:
        """`certificates` are PEM, and vouch for a TLS server; empty: the system's do."""
        self._collector = collector
        self._encoder = encoder
        self._certificates = certificates
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._unconfirmed: deque[tuple[int, Sequence[Record]]] = deque()
        """Batches with their octets, the oldest first."""
        self._room = 0

    async def send(self, records: Sequence[Record]) -> int:
        """See `Delivery`."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._ready()
                await self._put(records)
        except (OSError, TimeoutError) as error:
            self._drop()
            self._give_back(records)
            raise Unreachable(_why(self._collector, error)) from error
        except BaseException:  # cancelled, at the end
            self._give_back(records)
            raise
        return 0

    def _give_back(self, records: Sequence[Record]) -> None:
        """Whoever called keeps these, and counts them."""
        if self._unconfirmed and self._unconfirmed[-1][1] is records:
            self._unconfirmed.pop()

    @property
    def held(self) -> int:
        """See `Delivery`."""
        return sum(len(records) for _, records in self._unconfirmed)

    @property
    def unsettled(self) -> bool:
        """See `Delivery`."""
        if self._streams:
            self._confirm(*self._streams)
        return bool(self._unconfirmed)

    async def close(self) -> int:
        """See `Delivery`."""
        streams = self._streams
        until = asyncio.get_running_loop().time() + CLOSING
        while self.unsettled and streams and not _is_over(*streams):
            if asyncio.get_running_loop().time() >= until:
                break
            await asyncio.sleep(_FULL)
        self._streams = None
        if streams:
            streams[1].close()
            try:
                async with asyncio.timeout(CLOSING):
                    await streams[1].wait_closed()
            except (OSError, TimeoutError):
                streams[1].transport.abort()
        return self.held

    async def _ready(self) -> None:
        if self._streams and _is_over(*self._streams):
            self._confirm(*self._streams)
            self._drop()
        if self._streams:
            return
        own = self._collector
        context = _context(self._certificates) if own.transport == "tls" else None
        reader, writer = await asyncio.open_connection(str(own.host), own.port, ssl=context)
        # Else `drain` would be content while our own buffer holds what the socket does not take.
        writer.transport.set_write_buffer_limits(high=0)
        connected = writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._room = connected.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._streams = reader, writer
        self._encoder.begin()
        again, self._unconfirmed = self._unconfirmed, deque()
        try:
            while again:
                await self._put(again.popleft()[1])
        finally:
            self._unconfirmed.extend(again)

    async def _put(self, records: Sequence[Record]) -> None:
        streams = self._streams
        data = b"".join(message for message, _ in self._encoder.encode(records))
        if not data or streams is None:
            return
        self._confirm(*streams)
        self._unconfirmed.append((len(data), records))
        streams[1].write(data)
        await streams[1].drain()
        if _is_over(*streams):
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        # What does not fit into the socket's buffer any more has left it, acknowledged.
        held = sum(size for size, _ in self._unconfirmed)
        while held - self._unconfirmed[0][0] > self._room:
            held -= self._unconfirmed.popleft()[0]

    def _confirm(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forget what the other host has acknowledged: everything, or nothing that could be told apart.

        Of a connection that broke nothing is: what it did not take is in no buffer that could be asked.
        """
        if self._unconfirmed and not _is_broken(reader, writer) and not _unacknowledged(writer):
            self._unconfirmed.clear()

    def _drop(self) -> None:
        streams, self._streams = self._streams, None
        if streams:
            streams[1].transport.abort()


def _is_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether there is no point in writing: it broke, or the other end has closed it."""
    return reader.at_eof() or _is_broken(reader, writer)


def _is_broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    return reader.exception() is not None or writer.transport.is_closing()


def _unacknowledged(writer: asyncio.StreamWriter) -> int:
    """Octets, in our buffer and the socket's (tcp(7), SIOCOUTQ, which has the number of TIOCOUTQ)."""
    raw = bytearray(4)
    own = writer.get_extra_info("socket")
    if own is None:
        return 1
    try:
        fcntl.ioctl(own.fileno(), termios.TIOCOUTQ, raw)
    except (OSError, ValueError):
        return 1
    return int(struct.unpack("=i", raw)[0]) + writer.transport.get_write_buffer_size()


def _context(certificates: str) -> ssl.SSLContext:
    """RFC 5425 section 4.2 and 5.2: the server's certificate is checked, its name too; TLS 1.2 or newer."""
    context = ssl.create_default_context(cadata=certificates or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _resolve(collector: Collector, kind: int) -> tuple[int, tuple[str, int]]:
    found = await asyncio.get_running_loop().getaddrinfo(str(collector.host), collector.port, type=kind)
    family, *_, address = found[0]
    return family, (str(address[0]), int(address[1]))


def _why(collector: Collector, error: Exception) -> str:
    if isinstance(error, TimeoutError) and not getattr(error, "errno", None):
        return f"{collector}: no answer within {PATIENCE:.0f} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{collector}: its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"{collector}: TLS: {error.reason or error}"
    number = getattr(error, "errno", None)
    if isinstance(error, socket.gaierror):
        return f"{collector}: the name does not resolve"
    return f"{collector}: {os.strerror(number) if number else error}"
