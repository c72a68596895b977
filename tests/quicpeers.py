"""A server and a client of QUIC: the server says its name, the client asks from wherever it likes.

`python -m tests.quicpeers PORT ADDRESS…` serves at each address, which is its name; with `--retry` it asks
clients to come again with a token.
"""

import asyncio
import socket
import ssl
import sys
import tempfile
import time
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent, StreamDataReceived

from rig.host import Host
from rig.process import Process
from rig.servers import ROOT
from tests.certificates import signed

ALPN = ["name"]
WITHIN = 30.0
"""Seconds for an answer, on a machine that has much else to do."""


class _Saying(QuicConnectionProtocol):
    """Answers whatever is asked with a name, and how many were asked on this connection."""

    def __init__(self, *arguments: Any, name: str, **fields: Any) -> None:
        super().__init__(*arguments, **fields)
        self._name = name
        self._asked = 0

    def quic_event_received(self, event: QuicEvent) -> None:
        """See `QuicConnectionProtocol`."""
        if isinstance(event, StreamDataReceived) and event.end_stream:
            self._asked += 1
            self._quic.send_stream_data(event.stream_id, f"{self._name} {self._asked}".encode(), True)
            self.transmit()


async def _serve(port: int, names: list[str], *, retry: bool) -> None:
    configuration = QuicConfiguration(is_client=False, alpn_protocols=ALPN)
    made = signed()
    with tempfile.TemporaryDirectory() as folder:
        for file, text in (("chain", made.chain.encode()), ("key", made.key)):
            (Path(folder) / file).write_bytes(text)
        configuration.load_cert_chain(Path(folder) / "chain", Path(folder) / "key")
    for name in names:
        saying = partial(_Saying, name=name)
        await serve(name, port, configuration=configuration, create_protocol=saying, retry=retry)
    print("ready", flush=True)
    await asyncio.Event().wait()


def start_names(host: Host, port: int, *names: str, retry: bool = False) -> Process:
    """Have a host serve at these addresses of its own."""
    argv = [sys.executable, "-m", "tests.quicpeers", str(port), *names, *(["--retry"] if retry else [])]
    process = host.popen(argv, env={"PYTHONPATH": str(ROOT)})
    process.expect("ready")
    return process


class QuicClient:
    """One connection, with a socket that may be another one from now on."""

    def __init__(self, to: tuple[str, int], own: str, **fields: Any) -> None:
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=ALPN, verify_mode=ssl.CERT_NONE, server_name="localhost", **fields
        )
        self.quic = QuicConnection(configuration=configuration)
        self._to = to
        self._socket: socket.socket | None = None
        self._said: dict[int, bytes] = {}
        self._ready = self._over = False
        self.move(own)
        self.quic.connect(to, now=time.monotonic())
        self._go_on(lambda: self._ready)

    def move(self, own: str) -> None:
        """Send from this address, and from another port, from now on: the server is not told."""
        self.close()
        family = socket.AF_INET if ip_address(own).version == 4 else socket.AF_INET6
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.bind((own, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Be gone without a word."""
        if self._socket is not None:
            self._socket.close()

    def ask(self) -> tuple[str, int]:
        """Who answers, and how often it was asked on this connection."""
        stream = self.quic.get_next_available_stream_id()
        self.quic.send_stream_data(stream, b"who?", end_stream=True)
        self._go_on(lambda: stream in self._said)
        name, _, count = self._said[stream].decode().partition(" ")
        return name, int(count)

    def _go_on(self, done: Any) -> None:
        until = time.monotonic() + WITHIN
        assert self._socket is not None
        while not done():
            now = time.monotonic()
            if self._over or now > until:
                raise TimeoutError("nobody answers")
            for data, _ in self.quic.datagrams_to_send(now):
                self._socket.sendto(data, self._to)
            timer = self.quic.get_timer()
            self._socket.settimeout(max(0.001, min(timer or until, until) - time.monotonic()))
            try:
                self.quic.receive_datagram(self._socket.recv(65536), self._to, time.monotonic())
            except TimeoutError:
                self.quic.handle_timer(max(time.monotonic(), timer or 0.0))
            self._hear()

    def _hear(self) -> None:
        while (event := self.quic.next_event()) is not None:
            match event:
                case HandshakeCompleted():
                    self._ready = True
                case StreamDataReceived(data, _, stream):
                    self._said[stream] = self._said.get(stream, b"") + data
                case ConnectionTerminated():
                    self._over = True


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--retry"]
    asyncio.run(_serve(int(words[0]), words[1:], retry="--retry" in sys.argv))
