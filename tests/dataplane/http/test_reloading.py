"""A hundred changes and ten certificates under load, in the clear and under TLS: not one request fails."""

import asyncio
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.cli.console import Console
from tests.dataplane.daemons import serving
from tests.dataplane.proxy.peers import free_port

pytestmark = pytest.mark.requires(commands=["wrk"])

CHANGES, CERTIFICATES = 100, 10
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Backends:
    """Two servers that answer everything, in a thread of their own."""

    def __init__(self) -> None:
        self.port = free_port()
        self._loop: asyncio.AbstractEventLoop
        self._ends: asyncio.Event
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _run(self) -> None:
        self._loop, self._ends = asyncio.get_running_loop(), asyncio.Event()
        async with AsyncExitStack() as stack:
            for address in ("127.0.0.2", "127.0.0.3"):
                await stack.enter_async_context(await asyncio.start_server(self._serve, address, self.port))
            self._ready.set()
            await self._ends.wait()

    def __enter__(self) -> "Backends":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        # By now nobody is connected any more: the daemon has ended.
        self._loop.call_soon_threadsafe(self._ends.set)
        self._thread.join(10)


@contextmanager
def load(url: str) -> Iterator[list[str]]:
    """wrk, until the end; what it said is in the list then."""
    said: list[str] = []
    words = ["wrk", "--threads", "1", "--connections", "8", "--duration", "600s", "--timeout", "20s", url]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield said
        finally:
            process.send_signal(signal.SIGINT)
            said.append(process.communicate(timeout=30)[0])


class Newcomers:
    """Clients one after the other, each with a connection and a request of its own."""

    def __init__(self, port: int, authority: str) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._port = port
        self._context = ssl.create_default_context(cadata=authority)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Newcomers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._ends.wait(0.01):
            try:
                self._ask()
                self.answered += 1
            except OSError as error:
                self.failed.append(repr(error))

    def _ask(self) -> None:
        with (
            socket.create_connection(("127.0.0.1", self._port), 20) as plain,
            self._context.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            said = b""
            while piece := client.recv(4096):
                said += piece
            if not (said.startswith(b"HTTP/1.1 200") and said.endswith(b"hello")):
                raise ConnectionError(said)


def change(site: Console, number: int, plain: int) -> None:
    """One of several kinds, to what carries the load as well as beside it."""
    also = ("mapping", "add", f"more{number}", "--from", "lan", "--to", "web", "--protocol", "http")
    kinds = (
        (*also, "--listen", f"127.0.0.1:{plain}", "--host", f"h{number}.example"),
        ("mapping", "set", "plain", "--response-timeout", f"{20 + number}s", "--retry", "reset,502"),
        ("service", "set", "web", "--address", "127.0.0.2"),
        ("mapping", "set", "secure", "--priority", str(100 + number), "--max-requests", "500"),
        ("service", "set", "web", "--address", "127.0.0.2,127.0.0.3"),
        ("mapping", "set", "plain", "--balance", "round-robin" if number % 2 else "source"),
        ("service", "set", "web", "--drain", "127.0.0.3"),
        ("mapping", "set", "plain", "--path-prefix", "/" if number % 2 else ""),
        ("service", "set", "web", "--no-drain"),
        ("mapping", "remove", f"more{number - 9}", "--yes"),
    )
    site.ok(*kinds[number % len(kinds)])


@pytest.mark.timeout(300)
def test_no_request_fails(tmp_path: Path) -> None:
    plain, secure = free_port(), free_port()
    site = Console(tmp_path)
    with Backends() as backends, ExitStack() as stack:
        site.ok("init")
        site.ok("service", "add", "lan", "--address", "127.0.0.1")
        site.ok("service", "add", "web", "--address", "127.0.0.2,127.0.0.3", "--port", str(backends.port))
        site.ok("cert", "generate", "site", "--host", "localhost")
        web = ("--from", "lan", "--to", "web", "--protocol", "http", "--host")
        site.ok("mapping", "add", "plain", *web, "localhost", "--listen", f"127.0.0.1:{plain}")
        site.ok(
            "mapping", "add", "secure", *web, "localhost", "--listen", f"127.0.0.1:{secure}", "--tls", "site"
        )
        ca = site.ok("cert", "show", "ca", "--pem").out
        stack.enter_context(serving(tmp_path, MARCHPROXY_WORKERS="2"))
        in_clear = stack.enter_context(load(f"http://localhost:{plain}/"))
        under_tls = stack.enter_context(load(f"https://localhost:{secure}/"))
        newcomers = stack.enter_context(Newcomers(secure, ca))
        for number in range(CHANGES):
            change(site, number, plain)
            if number % (CHANGES // CERTIFICATES) == 5:
                site.ok("cert", "renew", "site")
        shown = site.ok("status", "--output", "json").json
        assert shown["problems"] == []
        assert shown["revision"] == site.ok("revision", "list", "--output", "json").json[0]["number"]
        site.ok("cluster", "list")
    assert newcomers.failed == []
    assert newcomers.answered > CERTIFICATES
    for said in (*in_clear, *under_tls):
        assert "Requests/sec" in said
        assert "Socket errors" not in said
        assert "Non-2xx" not in said
