"""The commands against a real daemon, on sockets: the stand-in of the other tests tells the truth."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from marchproxy.client.control import Control
from tests.cli.console import STATUS, Console
from tests.cli.test_flows import FLOW

ROOT = Path(__file__).parents[2]


def wait_for[T](ask: Callable[[], T | None], seconds: float = 30.0) -> T:
    """What `ask` answers, once it answers something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def backend() -> Iterator[int]:
    """A server that accepts, and holds what it accepted; its port."""
    held = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in held:
        connection.close()


@pytest.fixture
def listen(console: Console, backend: int) -> Iterator[str]:
    """A daemon that serves `backend` at the address and port that are returned."""
    listen = f"127.0.0.1:{free_port()}"
    console.variables |= {"MARCHPROXY_METRICS_LISTEN": "off", "MARCHPROXY_DRAIN_SECONDS": "0"}
    console.ok("init")
    console.ok("service", "add", "clients", "--address", "127.0.0.0/8")
    console.ok("service", "add", "web", "--address", "127.0.0.1", "--port", str(backend))
    flags = ["--from", "clients", "--to", "web", "--protocol", "tcp", "--listen", listen]
    console.ok("mapping", "add", "cw", *flags)
    daemon = subprocess.Popen(
        [sys.executable, "-m", "marchproxy", "run", "--no-bpf"],
        cwd=ROOT,
        env=os.environ | console.variables,
        stderr=subprocess.PIPE,
    )
    try:
        wait_for(lambda: console("status").code in (0, 1))
        yield listen
    finally:
        daemon.send_signal(signal.SIGTERM)
        _, log = daemon.communicate(timeout=30)
    assert daemon.returncode == 0, log.decode()


def connect(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    return socket.create_connection((host, int(port)))


def test_what_the_daemon_says_has_the_keys_that_scripts_rely_on(console: Console, listen: str) -> None:
    assert Control(console.environment()).get("/v1/status").keys() == STATUS.keys()
    document = console("status", "--output", "json").json
    assert (document["revision"], document["tier"]) == (4, "sockets")
    with connect(listen):
        (flow,) = wait_for(lambda: console.ok("flows", "--output", "json").json)
    assert flow.keys() == FLOW.keys()
    assert (flow["mapping"], flow["tier"], flow["verdict"]) == ("cw", "sockets", "allow")


def test_a_change_is_in_force_when_the_command_returns(console: Console, listen: str) -> None:
    host, _, port = listen.rpartition(":")
    question = ["explain", "--from", "127.0.0.1", "--to", host, "--port", port, "--output", "json"]
    assert console(*question).json["verdict"] == "allow"
    console.ok("mapping", "set", "cw", "--action", "deny")
    denied = console(*question)
    assert (denied.code, denied.json["reason"], denied.json["revision"]) == (10, "DENY_MAPPING", 5)
    assert console.ok("diff", "--output", "json").json == []
    with pytest.raises(ConnectionResetError), connect(listen) as refused:
        refused.recv(1)
    (row,) = wait_for(lambda: console.ok("flows", "--denied", "--output", "json").json)
    assert (row["reason"], row["mapping"]) == ("DENY_MAPPING", "cw")


def test_logs_say_what_it_did_and_hold_no_secret(console: Console, listen: str, tmp_path: Path) -> None:
    console.ok("service", "add", "vault", "--address", "127.0.0.1", "--port", "9", "--auth", "token")
    token = tmp_path / "token"
    token.write_text(console.ok("token", "issue", "vault").out.strip())
    host, _, port = listen.rpartition(":")
    question = ["explain", "--from", "127.0.0.1", "--to", host, "--port", port, "--token-file", str(token)]
    console(*question)
    console.ok(
        "mapping", "add", "again", "--from", "clients", "--to", "web", "--protocol", "tcp", "--listen", listen
    )
    rows = console.ok("logs", "--output", "json").json
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    assert any("is ready" in row["message"] for row in rows)
    assert {row["process"] for row in rows} >= {"daemon"}
    assert token.read_text() not in json.dumps(rows)
    assert "is ready" in console.ok("logs", "--text", "READY").out


def test_explain_says_the_same_with_and_without_a_daemon(
    console: Console, listen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = listen.rpartition(":")[2]
    question = ["explain", "--from", "127.0.0.1", "--to", "web", "--port", port, "--output", "json"]
    asked = console.ok(*question).json
    elsewhere = Console(console.folder)
    elsewhere.variables["MARCHPROXY_RUNTIME_DIR"] = str(console.folder / "nowhere")
    alone = elsewhere.ok(*question).json
    note = "the sockets tier carries, which has no program in the kernel"
    assert asked == alone | {"tier": "sockets", "kernel_note": note}


def test_what_the_daemon_cannot_do_is_stored_and_reported(
    console: Console, listen: str, backend: int
) -> None:
    console.ok("service", "add", "elsewhere", "--address", "127.0.0.2", "--port", str(backend))
    flags = [
        "--from",
        "clients",
        "--to",
        "elsewhere",
        "--protocol",
        "tcp",
        "--listen",
        f"127.0.0.1:{backend}",
    ]
    result = console("mapping", "add", "taken", *flags)
    assert result.code == 1
    assert "stored, but not in force" in result.err
    assert [change["name"] for change in console.ok("diff", "--output", "json").json] == ["taken"]
    assert console("status").code == 1
    console.ok("mapping", "remove", "taken", "--yes")
    wait_for(lambda: console("status").code == 0)


def test_follow_until_ctrl_c(console: Console, listen: str) -> None:
    follower = subprocess.Popen(
        [sys.executable, "-m", "marchproxy", "flows", "--follow", "--output", "json"],
        cwd=ROOT,
        env=os.environ | console.variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert follower.stdout is not None
    # Until it has subscribed nobody tells it anything, so knock until it says something.
    stop = threading.Event()

    def knock() -> None:
        while not stop.wait(0.05):
            connect(listen).close()

    knocking = threading.Thread(target=knock)
    knocking.start()
    event = json.loads(follower.stdout.readline())
    stop.set()
    knocking.join()
    follower.send_signal(signal.SIGINT)
    _, said = follower.communicate(timeout=30)
    assert event["kind"] in ("flow-start", "flow-end")
    assert event["mapping"] == "cw"
    assert (follower.returncode, said) == (0, b"")
