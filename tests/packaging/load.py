"""A thousand conversations through an appliance at once, each of which would notice a lost packet.

Flows at a listener, tunnels by the explicit proxy, and datagrams that carry numbers. All say something in
each round and wait for its echo.
"""

import socket
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rig import Host

TIMEOUT = 20.0
"""Seconds for one echo: longer than anything that is tested takes, shorter than TCP's patience."""
_RETRANSMITTED = slice(100, 104)
"""`tcpi_total_retrans` in `struct tcp_info` (linux/tcp.h)."""


@dataclass(slots=True)
class Load:
    """Conversations of one host; they talk between `with` and its end."""

    host: Host
    flow: tuple[str, int]
    """Address and port of a listener for TCP and UDP with an echo behind it."""
    proxy: tuple[str, int]
    target: str
    """`ADDR:PORT` of an echo that the proxy leads to."""
    flows: int = 850
    tunnels: int = 100
    datagrams: int = 50
    rounds: int = 0
    """How often each has been answered."""
    failures: list[BaseException] = field(default_factory=list)
    _streams: list[socket.socket] = field(default_factory=list)
    _senders: list[socket.socket] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def open(self) -> None:
        """Open all of them, and have each answered once."""
        self.host.call(self._open)
        self.host.call(self._round)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._talk)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(2 * TIMEOUT)

    def close(self) -> None:
        """End all of them."""
        for each in (*self._streams, *self._senders):
            each.close()

    @property
    def retransmitted(self) -> int:
        """Segments that the clients' kernel sent again, in all."""
        return sum(map(retransmitted, self._streams))

    def _open(self) -> None:
        for _ in range(self.flows):
            self._streams.append(socket.create_connection(self.flow, TIMEOUT))
        request = f"CONNECT {self.target} HTTP/1.1\r\nHost: {self.target}\r\n\r\n".encode()
        for _ in range(self.tunnels):
            tunnel = socket.create_connection(self.proxy, TIMEOUT)
            self._streams.append(tunnel)
            tunnel.sendall(request)
            head = b""
            while b"\r\n\r\n" not in head:
                piece = tunnel.recv(1)
                assert piece, head
                head += piece
            assert b" 200 " in head.partition(b"\r\n")[0], head
        for _ in range(self.datagrams):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sender.settimeout(TIMEOUT)
            sender.connect(self.flow)
            self._senders.append(sender)

    def _talk(self) -> None:
        try:
            self.host.call(self._rounds)
        except BaseException as error:
            self.failures.append(error)

    def _rounds(self) -> None:
        while not self._over.wait(0.01):
            self._round()

    def _round(self) -> None:
        said = b"%012d" % self.rounds
        for each in (*self._streams, *self._senders):
            each.sendall(said)
        for stream in self._streams:
            assert stream.recv(len(said), socket.MSG_WAITALL) == said
        for sender in self._senders:
            assert sender.recv(100) == said, "a datagram of this round was lost"
        self.rounds += 1


def retransmitted(stream: socket.socket) -> int:
    """Segments of one connection that this side's kernel sent again, its SYN included."""
    info = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[_RETRANSMITTED], "little")
