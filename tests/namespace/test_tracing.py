"""`marchproxy trace` sees what was provoked: a refused connection, loss, a dropped packet."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rig import Appliance, Rig
from rig.process import Process
from rig.servers import start_echo, start_http
from rig.traffic import HTTP
from rig.waiting import wait_for
from tests.namespace.conftest import define

pytestmark = pytest.mark.requires(
    "root", "netns", "veth", "bpf", "bpffs", "btf", commands=["/usr/bin/python3", "bpftool"]
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=2, servers=3) as built:
        start_http(built.server)
        start_echo(built.server)
        yield built


@pytest.fixture(scope="module")
def appliance(rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig) as built:
        define(built)
        # Its servers would have two names.
        built.cli("mapping", "remove", "farm", "--yes")
        built.cli("service", "remove", "farm", "--yes")
        built.cli("service", "add", "closed", "--address", "10.2.0.2", "--port", "81")
        listen = ("--protocol", "tcp", "--listen", "10.1.0.1:8090")
        built.cli("mapping", "add", "closed", "--from", "clients", "--to", "closed", *listen)
        built.start()
        yield built


class Traced:
    """A question that is being asked."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def rows(self) -> list[dict[str, Any]]:
        """What it has told so far; the line that is being written is left out."""
        lines = [line for line in self.process.output().splitlines(keepends=True) if line.startswith("{")]
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def end(self) -> list[dict[str, Any]]:
        """Everything, after a Ctrl-C."""
        self.process.signal(signal.SIGINT)
        assert self.process.wait() == 0
        return self.rows()


@contextmanager
def traced(appliance: Appliance, question: str, *flags: str) -> Iterator[Traced]:
    """Ask, and begin once the kernel runs the programs."""
    before = raw_tracepoints()
    words = [*appliance.command, "trace", question, "--duration", "60s", "--output", "json", *flags]
    process = appliance.host.popen(words, env=appliance.env)
    try:
        wait_for(lambda: raw_tracepoints() - before or not process.running, "the programs", timeout=20)
        # All of a question's programs are attached within milliseconds of the first.
        time.sleep(0.3)
        assert process.running, process.tail()
        yield Traced(process)
    finally:
        if process.running:
            process.kill()


def raw_tracepoints() -> set[int]:
    shown = json.loads(subprocess.check_output(["bpftool", "-j", "prog", "list"]))
    return {each["id"] for each in shown if each["type"] == "raw_tracepoint"}


def ask_http(port: int, times: int) -> None:
    with HTTP("10.1.0.1", port) as connection:
        for _ in range(times):
            connection.download(500)


def connects(port: int) -> bool:
    return reaches("10.1.0.1", port)


def reaches(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


def measured(rows: list[dict[str, Any]]) -> dict[tuple[str, str], int]:
    return {(row["service"], row["what"]): row["count"] for row in rows}


def test_refused_connections_and_answers_by_service(rig: Rig, appliance: Appliance) -> None:
    with traced(appliance, "latency") as asked:
        rig.client.call(ask_http, 8080, 5)
        assert not rig.client.call(connects, 8090)
        rows = asked.end()
    found = measured(rows)
    assert found["web", "connect"] == 1
    assert found["web", "request"] == 5
    assert found["closed", "refused"] == 1
    assert ("closed", "connect") not in found
    for row in rows:
        assert sum(slot["count"] for slot in row["histogram"]) == row["count"]
        assert 0 < row["mean_us"] < 5_000_000


def test_slow_answers_are_told_from_fast_connects(rig: Rig, appliance: Appliance) -> None:
    """The server's answers wait in a queue of its own that is slower than the request needs."""
    with listening(rig) as port, traced(appliance, "latency", "--service", "closed") as asked:
        assert port == 81

        def talk() -> bytes:
            with socket.create_connection(("10.1.0.1", 8090), timeout=5) as connection:
                connection.sendall(b"?")
                return connection.recv(10)

        assert rig.client.call(talk) == b"!"
        rows = {row["what"]: row for row in asked.end()}
    assert rows["connect"]["count"] == rows["request"]["count"] == 1
    assert rows["request"]["mean_us"] > 200_000


def test_connection_that_was_open_before(rig: Rig, appliance: Appliance) -> None:
    def talk(within: Callable[[], None]) -> None:
        with HTTP("10.1.0.1", 8080) as connection:
            connection.download(10)
            within()
            connection.download(10)

    opened, go_on = socket.socketpair()
    with opened, go_on:

        def wait() -> None:
            go_on.sendall(b"1")
            go_on.recv(1)

        thread = threading.Thread(target=rig.client.call, args=(talk, wait))
        thread.start()
        opened.recv(1)
        with traced(appliance, "latency") as asked:
            opened.sendall(b"1")
            thread.join()
            assert measured(asked.end()) == {("web", "request"): 1}


def test_nobody_answers(rig: Rig, appliance: Appliance) -> None:
    with lost(rig), traced(appliance, "latency") as asked:

        def attempt() -> None:
            with socket.socket() as connection:
                connection.setblocking(False)
                connection.connect_ex(("10.1.0.1", 8080))
                time.sleep(0.2)

        rig.client.call(attempt)
        assert measured(asked.end()) == {("web", "unanswered"): 1}


def test_loss_behind_the_appliance_is_seen_as_retransmits(rig: Rig, appliance: Appliance) -> None:
    opened = rig.client.call(socket.create_connection, ("10.1.0.1", 7007), 5)
    with opened, traced(appliance, "retransmits") as asked:
        opened.sendall(b"once")
        assert opened.recv(10) == b"once"
        time.sleep(0.1)
        assert asked.rows() == []
        with lost(rig):
            opened.sendall(b"again and again")
            wait_for(lambda: len(asked.rows()) >= 2, "retransmits")
        rows = asked.end()
    (total,) = [row for row in rows if row["kind"] == "total"]
    events = [row for row in rows if row["kind"] == "retransmit"]
    assert total["count"] == len(events) >= 2
    for row in (total, *events):
        assert (row["source"], row["destination"], row["destination_port"]) == ("10.1.0.2", "10.1.0.1", 7007)
        assert (row["source_service"], row["sender"]) == ("clients", "passed")


def test_retransmits_of_the_appliances_own_sockets(rig: Rig, appliance: Appliance) -> None:
    with traced(appliance, "retransmits") as asked, lost(rig):

        def attempt() -> None:
            with socket.socket() as connection:
                connection.setblocking(False)
                connection.connect_ex(("10.2.0.2", 80))
                wait_for(lambda: bool(asked.rows()), "a retransmit")

        appliance.host.call(attempt)
        row = asked.end()[0]
    assert (row["sender"], row["destination"], row["destination_port"]) == ("own", "10.2.0.2", 80)


def test_dropped_packet_with_reason_and_function(rig: Rig, appliance: Appliance) -> None:
    def provoke(host: str) -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"?", (host, 9999))
            return int(sender.getsockname()[1])

    with traced(appliance, "drops", "--service", "clients") as asked:
        port = rig.client.call(provoke, "10.1.0.1")
        # In another network namespace: not ours.
        other = rig.server.call(provoke, "127.0.0.1")
        wait_for(lambda: bool(asked.rows()), "the drop")
        rows = asked.end()
    ours = [row for row in rows if row["source_port"] == port]
    assert [row["kind"] for row in ours] == ["drop", "total"]
    for row in ours:
        assert (row["reason"], row["protocol"], row["source"]) == ("NO_SOCKET", "udp", "10.1.0.2")
        assert "udp" in row["function"]
    assert [row for row in rows if row["source_port"] == other] == []


def test_way_that_the_appliance_does_not_know(rig: Rig, appliance: Appliance) -> None:
    with traced(appliance, "drops") as asked:
        assert not rig.client.call(reaches, "203.0.113.9", 80)
        wait_for(lambda: bool(asked.rows()), "the drop")
        rows = [row for row in asked.end() if row["destination"] == "203.0.113.9"]
    assert {row["reason"] for row in rows} == {"IP_INNOROUTES"}


def test_table_for_people(rig: Rig, appliance: Appliance) -> None:
    words = [*appliance.command, "trace", "latency", "--duration", "3s"]
    before = raw_tracepoints()
    process = appliance.host.popen(words, env=appliance.env)
    wait_for(lambda: raw_tracepoints() - before, "the programs", timeout=20)
    time.sleep(0.3)
    rig.client.call(ask_http, 8080, 3)
    assert process.wait() == 0
    said = process.output()
    assert "web  connect: 1, mean " in said
    assert "web  request: 3, mean " in said
    assert "█" in said
    wait_for(lambda: raw_tracepoints() == before, "the programs to be gone")


@contextmanager
def lost(rig: Rig) -> Iterator[None]:
    """Whatever the server would answer is lost on the way."""
    rig.server.ip("route add blackhole 10.2.0.1/32")
    try:
        yield
    finally:
        rig.server.ip("route del blackhole 10.2.0.1/32")


@contextmanager
def listening(rig: Rig) -> Iterator[int]:
    """A server at the port that is closed otherwise, which thinks before it answers."""
    with rig.server.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("10.2.0.2", 81))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(10)
                time.sleep(0.25)
                connection.sendall(b"!")

        thread = threading.Thread(target=serve)
        thread.start()
        yield 81
        thread.join()
