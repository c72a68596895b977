"""A UDP socket where QUIC is spoken: who is new, whom a datagram is for, what to say to all others."""

import asyncio
import socket
from contextlib import suppress
from typing import Protocol

from aioquic.quic.packet import QuicErrorCode, QuicHeader, encode_quic_retry
from aioquic.quic.retry import QuicRetryTokenHandler

from marchproxy.dataplane.proxy import pktinfo
from marchproxy.dataplane.proxy.sockets import address_of
from marchproxy.dataplane.proxy.udp import DATAGRAMS_AT_ONCE
from marchproxy.dataplane.quic import packets
from marchproxy.dataplane.quic.connection import Application, Connection, Datagrams, Path
from marchproxy.dataplane.quic.engine import Choose, Engine
from marchproxy.dataplane.quic.handshakes import PATIENCE, Handshakes
from marchproxy.dataplane.quic.segments import Segments
from marchproxy.dataplane.quic.steering import Steering
from marchproxy.model.address import IPAddress
from marchproxy.policy.plan import WILDCARDS

ANSWERS = 200
"""Resets and offers of other versions in a second: what they answer costs nobody anything to send."""
_BUFFER = 4 * 1024 * 1024
"""Bytes that wait in the socket while we compute; the kernel may lower it (net.core.rmem_max)."""

_scratch = memoryview(bytearray(65536))


class Server(Protocol):
    """Who decides about clients, and speaks with them."""

    def certificates(self, path: Path) -> Choose | None:
        """What a client is shown; None: nobody speaks to it, and that was written down."""

    def serve(self, connection: Connection) -> Application:
        """Take a connection that begins."""


class Endpoint:
    """The socket, and the connections that came to it."""

    def __init__(self, sock: socket.socket, address: IPAddress, steering: Steering, server: Server) -> None:
        """`address`: what the socket is bound to."""
        self.handshakes = Handshakes()
        self.draining = False
        """No new connections."""
        self._socket = sock
        self._address = address
        self._steering = steering
        self._server = server
        self._wildcard = address in WILDCARDS.values()
        self._loop = asyncio.get_running_loop()
        self._segments = Segments(sock, wildcard=self._wildcard)
        self._by_id: dict[bytes, Connection] = {}
        self._every: dict[Connection, IPAddress | None] = {}
        """With the source whose handshake it is, until that is complete."""
        self._tokens = QuicRetryTokenHandler()
        self._answers = 0
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)

    def start(self) -> None:
        """Begin to receive."""
        self._loop.add_reader(self._socket, self._readable)

    def close(self) -> None:
        """Stop receiving. Connections that were not closed end without a word."""
        self._loop.remove_reader(self._socket)
        for connection in tuple(self._every):
            connection.abandon()
        self._socket.close()

    def tick(self) -> None:
        """Called about once a second: give up handshakes that take too long."""
        self._answers = 0
        now = self._loop.time()
        for connection, source in tuple(self._every.items()):
            if source is not None and now - connection.began > PATIENCE:
                connection.abandon()

    def receive(self, data: bytes, path: Path) -> Connection | None:
        """Take a datagram, and return whose it is; its `flush` must follow."""
        head = packets.read_head(data)
        if head is None:
            return None
        connection = self._by_id.get(head.destination)
        if connection is None:
            connection = self._stranger(head, data, path)
            if connection is None:
                return None
        connection.receive(data, path, self._loop.time())
        if connection.engine.unheard:
            # Nothing in it could be read: no reason to remember it.
            connection.abandon()
            return None
        return connection

    # ---- of Carrier

    def send(self, datagrams: Datagrams) -> None:
        """See `Carrier`."""
        self._segments.send(datagrams)

    def know(self, connection_id: bytes, connection: Connection) -> None:
        """See `Carrier`."""
        connection.ids.add(connection_id)
        self._by_id[connection_id] = connection

    def forget_id(self, connection_id: bytes) -> None:
        """See `Carrier`."""
        connection = self._by_id.pop(connection_id, None)
        if connection is not None:
            connection.ids.discard(connection_id)

    def complete(self, connection: Connection) -> None:
        """See `Carrier`."""
        source = self._every.get(connection)
        if source is not None:
            self._every[connection] = None
            self.handshakes.leave(source)

    def forget(self, connection: Connection) -> None:
        """See `Carrier`."""
        self.complete(connection)
        self._every.pop(connection, None)
        for connection_id in connection.ids:
            self._by_id.pop(connection_id, None)
        connection.ids.clear()

    # ---- within

    def _readable(self) -> None:
        touched: dict[Connection, None] = {}
        for _ in range(DATAGRAMS_AT_ONCE):
            try:
                size, ancillary, _, client = self._socket.recvmsg_into([_scratch], pktinfo.ANCILLARY)
            except OSError:
                break
            with suppress(LookupError):
                local = pktinfo.destination(ancillary) if self._wildcard else self._address
                connection = self.receive(bytes(_scratch[:size]), Path(client, local))
                if connection is not None:
                    touched[connection] = None
        for connection in touched:
            connection.flush()

    def _stranger(self, head: packets.Head, data: bytes, path: Path) -> Connection | None:
        """A connection for who begins one; None: it does not, or must not."""
        if head.version is None:
            self._reset(head.destination, len(data), path)
            return None
        if head.version not in packets.VERSIONS:
            # Version 0 is such an offer itself, and nothing to answer.
            if head.version and len(data) >= packets.SMALLEST and self._may_answer():
                self._say(packets.other_versions(head), path)
            return None
        header = packets.read_initial(data)
        return None if header is None else self._begin(header, path)

    def _begin(self, header: QuicHeader, path: Path) -> Connection | None:
        source = address_of(path.client[0])
        now = self._loop.time()
        original, retried, shown = header.destination_cid, None, False
        if header.token:
            with suppress(ValueError):
                original = self._tokens.validate_token(
                    address=path.client, destination_cid=original, token=header.token, now=now
                )
                retried, shown = header.destination_cid, True
        if not shown and self.handshakes.crowded(source):
            if header.token:
                self._say(packets.refusal(header, QuicErrorCode.INVALID_TOKEN), path)
            else:
                self._ask_to_retry(header, path, now)
            return None
        choose = None
        if not (self.draining or self.handshakes.full(source)):
            choose = self._server.certificates(path)
        if choose is None:
            self._say(packets.refusal(header, QuicErrorCode.CONNECTION_REFUSED), path)
            return None
        connection = Connection(Engine(self._steering, choose, original, retried), self, path, now)
        connection.application = self._server.serve(connection)
        self._every[connection] = source
        self.handshakes.enter(source)
        self.know(header.destination_cid, connection)
        self.know(connection.engine.host_cid, connection)
        return connection

    def _ask_to_retry(self, header: QuicHeader, path: Path, now: float) -> None:
        """Keeps nothing: what we have to know comes back in the token."""
        made = self._steering.connection_id()
        token = self._tokens.create_token(
            address=path.client,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=made,
            now=now,
        )
        if header.version is not None:
            answer = encode_quic_retry(header.version, made, header.source_cid, header.destination_cid, token)
            self._say(answer, path)

    def _reset(self, connection_id: bytes, size: int, path: Path) -> None:
        answer = packets.reset(self._steering.reset_token(connection_id), size)
        if answer is not None and self._may_answer():
            self._say(answer, path)

    def _may_answer(self) -> bool:
        self._answers += 1
        return self._answers <= ANSWERS

    def _say(self, datagram: bytes, path: Path) -> None:
        self._segments.send([(datagram, path)])
