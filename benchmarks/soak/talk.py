"""Clients of every kind, each in a thread of its own; whatever they get is compared with what they should."""

import random
import socket
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import ClassVar

from rig import Host
from rig.payload import digest
from rig.traffic import HTTP, TIMEOUT, Talk, ask_tcp

PAUSE = 0.02
"""Seconds between two turns of a client: the machine is to have work, not to be busy."""
MOST = 16_384
"""Bytes of one message."""
PORTS = 32
RETRIES = 5
"""Of a datagram, which nobody has promised to deliver."""


KEPT_FAILURES = 1000
"""A turn takes a while; who fails more often than that is looked at anyway."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A turn that went wrong."""

    began: float
    """Monotonic, as all times here."""
    ended: float
    said: str


class Talker(ABC):
    """One kind of client."""

    name: ClassVar[str]

    def __init__(self, host: Host, seed: int) -> None:
        self.turns = 0
        self.failures: list[Failure] = []
        self.failed = 0
        self.succeeded = 0.0
        """When the last good turn began."""
        self._host = host
        self._random = random.Random(seed)

    def talk(self, stop: threading.Event) -> None:
        """Take turns until the end."""
        self._host.call(self._run, stop)

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(PAUSE):
            began = time.monotonic()
            try:
                self.turn()
                self.turns += 1
                self.succeeded = began
            except (OSError, ValueError, HTTPException) as error:
                self.failed += 1
                if len(self.failures) < KEPT_FAILURES:
                    said = f"{type(error).__name__}: {error}"
                    self.failures.append(Failure(began, time.monotonic(), said))
                self.recover()
        self.close()

    @abstractmethod
    def turn(self) -> None:
        """Ask for something, and look at the answer. Raises `OSError`, or `ValueError` for a wrong one."""

    def recover(self) -> None:  # noqa: B027
        """Begin anew after a failure; most have nothing to begin with."""

    def close(self) -> None:  # noqa: B027
        """End what is kept."""

    def some(self) -> bytes:
        """Bytes to send."""
        return self._random.randbytes(self._random.randint(1, MOST))


def same(got: bytes | str, wanted: bytes | str) -> None:
    """Raises `ValueError` where they differ."""
    if got != wanted:
        raise ValueError(f"{len(got)} bytes came that are not the {len(wanted)} expected")


class Kept(Talker):
    """Connections that stay open for the whole run."""

    name = "kept connections"

    def __init__(self, host: Host, seed: int, address: str, port: int, count: int) -> None:
        super().__init__(host, seed)
        self._place = address, port
        self.talks = host.call(lambda: [Talk(address, port) for _ in range(count)])
        self._at = 0

    def turn(self) -> None:
        """The next of them."""
        said = self.some()
        same(self.talks[self._at % len(self.talks)].say(said), said)
        self._at += 1

    def recover(self) -> None:
        """Another in the place of the one that failed."""
        self.talks[self._at % len(self.talks)].close()
        try:
            self.talks[self._at % len(self.talks)] = Talk(*self._place)
        except OSError:
            # Its failure is counted at its next turn.
            self._at += 1

    def packets(self) -> list[tuple[int, int, int]]:
        """Of each: its port, segments sent and received (`tcp_info` of linux/tcp.h, kernel 4.2)."""
        found = []
        for talk in self.talks:
            facts = talk.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            found.append((talk.socket.getsockname()[1], *struct.unpack_from("=II", facts, 136)))
        return found

    def close(self) -> None:
        """They are looked at before they end: `end` closes them."""

    def end(self) -> None:
        """Close all."""
        for talk in self.talks:
            talk.close()


class Fresh(Talker):
    """A connection for each question."""

    def __init__(self, host: Host, seed: int, name: str, address: str, port: int) -> None:
        super().__init__(host, seed)
        self.name = name  # type: ignore[misc]
        self._place = address, port

    def turn(self) -> None:
        """Ask, end the own side, and read to the end."""
        said = self.some()
        same(ask_tcp(*self._place, said), said)


class Datagrams(Talker):
    """UDP from ports that stay: from new ones flows would become more for as long as they are kept."""

    name = "datagrams"

    def __init__(self, host: Host, seed: int, address: str, port: int) -> None:
        super().__init__(host, seed)
        self._sockets = [host.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(PORTS)]
        for each in self._sockets:
            each.connect((address, port))
            each.settimeout(1.0)
        self._asked = [deque[bytes](maxlen=PORTS) for _ in self._sockets]
        """Lately, from each: a question that was asked twice, or doubled under way, is answered twice."""

    def turn(self) -> None:
        """Ask, again where nothing comes. What answers an earlier question is passed by."""
        said = self._random.randbytes(self._random.randint(8, 1200))
        at = self._random.randrange(PORTS)
        sock, before = self._sockets[at], self._asked[at].copy()
        self._asked[at].append(said)
        for left in reversed(range(RETRIES)):
            try:
                sock.send(said)
                while (got := sock.recv(1 << 16)) in before:
                    pass
            except TimeoutError:
                if not left:
                    raise
            else:
                same(got, said)
                return

    def close(self) -> None:
        """End."""
        for each in self._sockets:
            each.close()


class Requests(Talker):
    """HTTP that is read, over a connection that is kept."""

    name = "requests"

    def __init__(self, host: Host, seed: int, address: str, port: int) -> None:
        super().__init__(host, seed)
        self._place = address, port
        self._connection: HTTP | None = None

    def turn(self) -> None:
        """A download or an upload."""
        if self._connection is None:
            self._connection = HTTP(*self._place)
        size = self._random.randint(0, 1 << 18)
        take = self._connection.download if self._random.random() < 0.5 else self._connection.upload
        same(take(size), digest(size))

    def recover(self) -> None:
        """The next one has a new connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """End."""
        self.recover()


class Tunnels(Talker):
    """CONNECT with a token, and bytes in both directions through what it opens."""

    name = "tunnels"

    def __init__(
        self, host: Host, seed: int, proxy: tuple[str, int], target: tuple[str, int], token: Callable[[], str]
    ) -> None:
        super().__init__(host, seed)
        self._proxy, self._target, self._token = proxy, target, token

    def turn(self) -> None:
        """A tunnel of a few messages."""
        with socket.create_connection(self._proxy, TIMEOUT) as sock:
            where = f"{self._target[0]}:{self._target[1]}"
            head = f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\nProxy-Authorization: Bearer {self._token()}"
            sock.sendall(f"{head}\r\n\r\n".encode())
            self._opened(sock)
            for _ in range(self._random.randint(1, 8)):
                said = self.some()
                sock.sendall(said)
                same(self._exactly(sock, len(said)), said)
            sock.shutdown(socket.SHUT_WR)
            same(sock.recv(1), b"")

    def _opened(self, sock: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = sock.recv(1)
            if not piece:
                raise ValueError(f"the proxy ended after {head!r}")
            head += piece
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise ValueError(head.split(b"\r\n", 1)[0].decode("latin-1"))

    def _exactly(self, sock: socket.socket, size: int) -> bytes:
        got = bytearray()
        while len(got) < size and (piece := sock.recv(size - len(got))):
            got += piece
        return bytes(got)
