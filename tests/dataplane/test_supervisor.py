"""The whole daemon as a process: signals, reloads, hostile clients, and what it costs to do nothing."""

import asyncio
import json
import os
import re
import signal
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from marchproxy.dataplane.ahead import Ahead
from marchproxy.dataplane.intent import Intent
from marchproxy.dataplane.options import RunOptions
from marchproxy.dataplane.runtime import RuntimeDir
from marchproxy.dataplane.status import Applied
from marchproxy.dataplane.supervisor import serve
from marchproxy.model.change import Change, Kind
from marchproxy.store.store import Store
from tests.dataplane.daemons import Daemon, Refused, command, configure, launched, serving
from tests.dataplane.loops import PATIENCE, looped, until
from tests.dataplane.proxy.peers import free_port

MEGABYTES = 60


@contextmanager
def echo_server() -> Iterator[int]:
    """A server in threads: it answers every connection with what it gets."""

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def mapping(port: int, *, name: str = "open", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "sources": ["all"],
        "destinations": ["echo"],
        "protocols": ["tcp"],
        "listen": f"127.0.0.1:{port}",
        **fields,
    }


def service(port: int) -> list[dict[str, Any]]:
    return [{"name": "echo", "addresses": ["127.0.0.1"], "port": port}]


def call(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def exchange(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return client.recv(len(data), socket.MSG_WAITALL)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def carrying(tmp_path: Path, port: int) -> Iterator[Daemon]:
    """A daemon that carries `port` to an echo server."""
    with echo_server() as backend:
        configure(tmp_path, mapping(port), services=service(backend))
        with serving(tmp_path) as daemon:
            yield daemon


def test_it_serves_says_so_and_ends_cleanly(carrying: Daemon, port: int) -> None:
    status = carrying.status()
    assert (status["pid"], status["healthy"]) == (carrying.process.pid, True)
    assert status["tier"] == {"name": "sockets", "reason": "--no-bpf was given"}
    assert status["listeners"] == [
        {"address": "127.0.0.1", "port": port, "protocol": "tcp", "mappings": ["open"]}
    ]
    with call(port) as client:
        assert exchange(client, b"hello") == b"hello"
        (flow,) = carrying.get("/v1/flows")
        assert (flow["state"], flow["bytes_sent"], flow["mapping"]) == ("established", 5, "open")
    ready = re.findall(r"INFO marchproxy \S+ is ready: (.*)", carrying.said())
    assert ready == [f"revision {status['revision']['number']}, sockets tier, 1 listeners"]
    carrying.signal(signal.SIGTERM)
    carrying.hear("STOPPING=1")
    assert carrying.ended() == 0
    assert not (carrying.folder / "run" / "control.sock").exists()
    with pytest.raises(ConnectionRefusedError):
        call(port)


@looped
async def test_a_revision_written_while_it_starts_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, services=[])
    control = tmp_path / "run" / "control.sock"
    read_store, told = Intent.reload, []

    async def write_behind_it(intent: Intent) -> Applied:
        """Read the store; right after that somebody writes to it, and says so as the commands do."""
        monkeypatch.setattr(Intent, "reload", read_store)
        applied = await read_store(intent)
        with Store.open(tmp_path / "state") as store:
            store.commit([Change(Kind.CLUSTER, "", "late", None, {"name": "late"})], message="late")
        told.append(await asyncio.open_unix_connection(control))
        told[0][1].write(b"POST /v1/reload HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
        return applied

    monkeypatch.setattr(Intent, "reload", write_behind_it)
    options = RunOptions(
        no_bpf=True, state_dir=tmp_path / "state", runtime_dir=tmp_path / "run", metrics=None, drain=0
    )
    runtime, ahead = RuntimeDir(options.runtime_dir), Ahead(options)
    daemon = asyncio.create_task(serve(options, runtime, ahead))
    await until(lambda: bool(told) or daemon.done(), "the first reading")
    if daemon.done():
        await daemon
    reader, writer = told[0]
    answer = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
    writer.close()
    os.kill(os.getpid(), signal.SIGTERM)
    await daemon
    ahead.close()
    runtime.close()
    with Store.open(tmp_path / "state", read_only=True) as store:
        assert answer["revision"] == store.head().number


def test_sighup_takes_the_new_revision_without_disturbing_connections(carrying: Daemon, port: int) -> None:
    other = free_port()
    before = carrying.status()["revision"]["number"]
    with call(port) as client:
        assert exchange(client, b"before") == b"before"
        document = json.loads((carrying.folder / "intent.json").read_text())
        document["clusters"][0]["mappings"].append(mapping(other, name="other"))
        (carrying.folder / "intent.json").write_text(json.dumps(document))
        # The command tells another runtime folder: this daemon must not hear of it before the signal.
        path = str(carrying.folder / "intent.json")
        elsewhere = str(carrying.folder / "nowhere")
        assert (
            command(
                carrying.folder, "apply", "-f", path, "--yes", MARCHPROXY_RUNTIME_DIR=elsewhere
            ).returncode
            == 0
        )
        assert carrying.status()["revision"]["number"] == before
        carrying.signal(signal.SIGHUP)
        carrying.hear("RELOADING=1\nMONOTONIC_USEC=")
        assert f"revision {before + 1}" in carrying.hear("READY=1")
        assert exchange(client, b"after") == b"after"
        with call(other) as second:
            assert exchange(second, b"new") == b"new"


def test_a_change_by_command_is_in_force_when_the_command_ends(carrying: Daemon, port: int) -> None:
    with call(port) as client:
        assert exchange(client, b"before") == b"before"
        denied = command(carrying.folder, "mapping", "set", "open", "--action", "deny")
        assert denied.returncode == 0, denied.stderr
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    # The reset may be there before connect has returned.
    with pytest.raises(ConnectionResetError), call(port) as client:
        client.recv(1)
    (refusal,) = carrying.get("/v1/flows", denied=1, reason="DENY_MAPPING")
    assert (refusal["mapping"], refusal["verdict"]) == ("open", "deny")


def test_a_plan_that_cannot_be_applied_leaves_the_old_one_and_is_told_everywhere(
    tmp_path: Path, port: int
) -> None:
    metrics = free_port()
    with echo_server() as backend, socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        configure(tmp_path, mapping(port), services=service(backend))
        with (
            serving(tmp_path, MARCHPROXY_METRICS_LISTEN=f"127.0.0.1:{metrics}") as daemon,
            call(port) as client,
        ):
            assert health(metrics) == (200, [])
            before = daemon.status()["revision"]["number"]
            added = command(tmp_path, "mapping", "set", "open", "--listen", f"127.0.0.1:{taken}")
            assert added.returncode == 1
            assert "another program has this address and port" in added.stderr
            assert exchange(client, b"still here") == b"still here"
            status = daemon.status()
            assert (status["healthy"], status["revision"]["number"]) == (False, before)
            assert command(tmp_path, "status").returncode == 1
            code, (problem,) = health(metrics)
            assert (code, problem["component"]) == (503, "policy")
            with pytest.raises(Refused) as refused:
                daemon.post("/v1/reload", {})
            assert (refused.value.status, refused.value.name) == (409, "Conflict")
            other.close()
            assert daemon.post("/v1/reload", {})["revision"] == before + 1
            assert command(tmp_path, "status").returncode == 0
            assert health(metrics) == (200, [])


def health(port: int) -> tuple[int, list[dict[str, str]]]:
    """Status and problems of /healthz."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)["problems"]
    except HTTPError as error:
        with error:
            return error.code, json.load(error)["problems"]


def test_sigterm_lets_connections_finish(carrying: Daemon, port: int) -> None:
    with call(port) as client:
        assert exchange(client, b"before") == b"before"
        carrying.signal(signal.SIGTERM)
        carrying.hear("STOPPING=1")
        assert exchange(client, b"during") == b"during"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert carrying.ended() == 0


def test_a_second_signal_does_not_wait(carrying: Daemon, port: int) -> None:
    with call(port) as client:
        assert exchange(client, b"before") == b"before"
        carrying.signal(signal.SIGINT)
        carrying.hear("STOPPING=1")
        carrying.signal(signal.SIGINT)
        assert carrying.ended() == 0
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_draining_ends_at_its_limit(tmp_path: Path, port: int) -> None:
    with echo_server() as backend:
        configure(tmp_path, mapping(port), services=service(backend))
        with serving(tmp_path, MARCHPROXY_DRAIN_SECONDS="0") as daemon, call(port) as client:
            assert exchange(client, b"before") == b"before"
            daemon.signal(signal.SIGTERM)
            assert daemon.ended() == 0
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_a_second_daemon_is_refused(carrying: Daemon) -> None:
    second = command(carrying.folder, "run", "--no-bpf")
    assert second.returncode == 4
    assert f"a daemon runs here already, process {carrying.process.pid}" in second.stderr
    assert carrying.status()["healthy"]


def test_after_a_kill_the_next_start_takes_over(carrying: Daemon, port: int) -> None:
    carrying.process.kill()
    carrying.process.wait()
    assert (carrying.folder / "run" / "control.sock").is_socket()
    with serving(carrying.folder) as successor, call(port) as client:
        assert successor.status()["healthy"]
        assert exchange(client, b"again") == b"again"


def test_the_watchdog_is_answered_again_and_again(tmp_path: Path) -> None:
    configure(tmp_path, services=service(1))
    with serving(tmp_path, WATCHDOG_USEC="600000") as daemon:
        for _ in range(3):
            assert daemon.hear("WATCHDOG=1") == "WATCHDOG=1"


def test_a_store_that_holds_nonsense_for_sockets_is_served_as_a_problem(tmp_path: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        configure(tmp_path, mapping(port), services=service(1))
        with serving(tmp_path) as daemon:
            status = daemon.status()
            assert (status["healthy"], status["revision"]["number"]) == (False, 0)
            assert "another program" in status["problems"][0]
            assert "another program" in daemon.said()


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ({}, 3, "does not exist"),
        ({"MARCHPROXY_METRICS_LISTEN": "here"}, 5, "MARCHPROXY_METRICS_LISTEN"),
        ({"MARCHPROXY_RUNTIME_DIR": "/proc/nothing"}, 1, "/proc/nothing"),
    ],
)
def test_what_keeps_it_from_starting_is_an_exit_code_and_a_sentence(
    tmp_path: Path, variables: dict[str, str], code: int, said: str
) -> None:
    with launched(tmp_path, **variables) as daemon:
        assert daemon.ended() == code
        assert said in daemon.said()
        assert "Traceback" not in daemon.said()


def test_hostile_clients_of_the_control_socket_harm_nobody(carrying: Daemon) -> None:
    path = str(carrying.folder / "run" / "control.sock")
    clients = []
    for sent in (
        b"\0" * 70_000,
        b"GET / HTTP/1.1\r\n" * 9000,
        b"POST /v1/reload HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
    ):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        client.connect(path)
        clients.append(client)
        try:
            client.sendall(sent)
        except (BrokenPipeError, ConnectionResetError):
            continue
    assert carrying.status()["healthy"]
    for client in clients:
        client.close()
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(70)]
    for client in crowd:
        client.connect(path)
    for _ in range(3):
        assert carrying.status()["healthy"], "half-open connections give way to who asks"
    for client in crowd:
        client.close()
    assert carrying.status()["healthy"]


def test_idle_it_costs_little_memory_and_next_to_no_time(tmp_path: Path, port: int) -> None:
    configure(tmp_path, mapping(port), services=service(1))
    with serving(tmp_path, WATCHDOG_USEC="900000") as daemon:
        process = Path("/proc") / str(daemon.process.pid)
        daemon.hear("WATCHDOG=1")
        before = ticks(process)
        # The watchdog is the clock here: three of its answers are nine tenths of a second.
        for _ in range(3):
            daemon.hear("WATCHDOG=1")
        assert ticks(process) - before <= 3
        lines = (process / "status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        assert resident <= MEGABYTES * 1024
        assert "pydantic" not in (process / "maps").read_text()


def ticks(process: Path) -> int:
    """Hundredths of a second of processor time so far, proc(5)."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
