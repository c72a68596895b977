"""Tunnels: the program that measures them counts what went through, and the page says who was how fast."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from benchmarks.bed import compiled
from benchmarks.contenders import Routing
from benchmarks.proxies import HAProxy
from benchmarks.results import Measurement, Run
from benchmarks.tunnels import MarchProxyTunnels, goals, markdown

pytestmark = pytest.mark.requires(commands=["clang"])


@pytest.fixture(scope="module")
def port() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    server = subprocess.Popen([compiled("tunnel"), "serve", str(number)], stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    yield str(number)
    server.kill()
    server.wait()
    server.stdout.close()


@pytest.fixture
def proxy() -> Iterator[str]:
    """Answers CONNECT and passes on, in a few lines."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve, args=(listening,), daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def _serve(listening: socket.socket) -> None:
    try:
        while True:
            client, _ = listening.accept()
            threading.Thread(target=_tunnel, args=(client,), daemon=True).start()
    except OSError:
        return


def _tunnel(client: socket.socket) -> None:
    try:
        head = client.recv(4096)
    except OSError:
        head = b""
    if not head:
        # Whoever measures has stopped.
        client.close()
        return
    host, _, port = head.split()[1].decode().partition(":")
    with client, socket.create_connection((host, int(port))) as server:
        client.sendall(b"HTTP/1.1 200 Connection established\r\nVia: here\r\n\r\n")
        back = threading.Thread(target=_copy, args=(server, client), daemon=True)
        back.start()
        _copy(client, server)
        back.join(5)


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


def run(*words: str) -> dict[str, float]:
    ended = subprocess.run(
        [compiled("tunnel"), *words], capture_output=True, text=True, check=True, timeout=20
    )
    return dict(json.loads(ended.stdout))


@pytest.mark.parametrize("mode", ["up", "down", "ping", "new"])
def test_what_goes_through_is_counted_straight_and_through_a_proxy(mode: str, port: str, proxy: str) -> None:
    for via in ("-", proxy):
        found = run(mode, via, "127.0.0.1", port, "0.2", "2")
        assert found["count"] > 0
        assert found["failed"] == 0
        assert 0.2 <= found["seconds"] < 5
        if mode in ("ping", "new"):
            assert 0 < found["p50"] <= found["p99"]


def test_a_proxy_that_refuses_is_an_error(port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(4096)
                client.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        via = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(subprocess.CalledProcessError) as caught:
            run("down", via, "127.0.0.1", port, "0.2")
        assert "403" in caught.value.stderr


def measured() -> Run:
    figures = {"routing": (50e9, 10.0), "marchproxy": (47e9, 12.0), "haproxy": (25e9, 20.0)}
    made = Run({"kernel": "6.18"}, dict.fromkeys(figures, "1"), rounds=1, seconds=2)
    for name, (up, p50) in figures.items():
        made.measurements += [Measurement(0, "up", name, up, 1e-9), Measurement(0, "p50", name, p50, 1e-6)]
    return made


def test_goals_compare_with_routing_and_with_the_best_of_the_others() -> None:
    assert list(goals(measured())) == [
        "one stream up: 0.94 of routing, goal 0.90 met; 1.88 of the best other, HAProxy TCP (0.50)",
        "one answer, median: 1.20 of routing; 0.60 of the best other, HAProxy TCP (2.00)",
    ]


def test_the_page_has_a_column_for_whoever_took_part() -> None:
    lines = markdown(measured(), "9 open tunnels: 1 MB").splitlines()
    assert lines[0] == f"| | {Routing.title} | {MarchProxyTunnels.title} | {HAProxy.title} |"
    assert "| one stream up, Gbit/s | 50.0 (50.0-50.0)<br>1.00 (1.00-1.00) | 47.0 " in lines[2]
    assert "9 open tunnels: 1 MB." in lines
