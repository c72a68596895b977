"""What clients say to the rig's servers: plain functions, as in `rig.client.call(fetch, address, 80)`.

All raise `OSError` as sockets do: `ConnectionRefusedError` for a reset, `TimeoutError` after `TIMEOUT` s.
"""

import hashlib
import http.client
import socket
from collections.abc import Callable

from rig.payload import payload

TIMEOUT = 20.0
CHUNK = 1 << 18


def fetch(address: str, port: int, path: str = "/", *, source: str = "") -> bytes:
    """The body of one GET over a connection of its own; `source` is an address of the host, or empty."""
    with HTTP(address, port, source=source) as connection:
        return connection.get(path)


class HTTP:
    """One keep-alive connection."""

    def __init__(self, address: str, port: int, *, source: str = "") -> None:
        """Connect."""
        local = (source, 0) if source else None
        self._connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT, source_address=local)
        self._connection.connect()

    def get(self, path: str) -> bytes:
        """The body of the answer."""
        self._connection.request("GET", path)
        return self._connection.getresponse().read()

    def download(self, size: int, progress: Callable[[int], None] = lambda _: None) -> str:
        """SHA-256 of `size` bytes from the server; `progress` is told how many have arrived."""
        self._connection.request("GET", f"/bytes/{size}")
        answer, hasher, arrived = self._connection.getresponse(), hashlib.sha256(), 0
        while data := answer.read(CHUNK):
            hasher.update(data)
            arrived += len(data)
            progress(arrived)
        return hasher.hexdigest()

    def upload(self, size: int) -> str:
        """The SHA-256 that the server found over `size` bytes of `rig.payload`."""
        self._connection.request("POST", "/", body=payload(size), headers={"Content-Length": str(size)})
        return self._connection.getresponse().read().decode()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> "HTTP":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ask_udp(address: str, port: int, question: bytes, *, source: str = "", timeout: float = TIMEOUT) -> bytes:
    """The answer to one datagram."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if source:
            sock.bind((source, 0))
        sock.settimeout(timeout)
        sock.connect((address, port))
        sock.send(question)
        return sock.recv(1 << 16)


def ask_tcp(address: str, port: int, question: bytes, *, source: str = "") -> bytes:
    """Everything that is answered to `question` once the sending side is closed."""
    local = (source, 0) if source else None
    with socket.create_connection((address, port), TIMEOUT, local) as sock:
        sock.sendall(question)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(CHUNK), b""))


class Talk:
    """One TCP connection to a server that sends back what it gets."""

    def __init__(self, address: str, port: int, *, source: str = "") -> None:
        """Connect."""
        self.socket = socket.create_connection((address, port), TIMEOUT, (source, 0) if source else None)

    def say(self, data: bytes) -> bytes:
        """As many bytes as were sent, or fewer if the server closes."""
        self.socket.sendall(data)
        answer = bytearray()
        while len(answer) < len(data) and (piece := self.socket.recv(len(data) - len(answer))):
            answer += piece
        return bytes(answer)

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
