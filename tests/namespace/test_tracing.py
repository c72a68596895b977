"""`marchproxy trace` sees what was provoked: a refused connection, loss, a dropped packet."""

import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rig import Appliance, Rig
from rig.process import Process
from rig.servers import start_echo, start_http
from rig.traffic import HTTP, TIMEOUT
from rig.waiting import wait_for
from tests.namespace.conftest import define

pytestmark = pytest.mark.requires(
    "root", "netns", "veth", "bpf", "bpffs", "btf", commands=["/usr/bin/python3", "bpftool"]
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=2, servers=3) as built:
        start_http(built.server)
        start_http(built.servers[2])
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
        built.cli("mapping", "add", "out", "--from", "all,external", "--to", "external", "--protocol", "tcp")
        built.cli("listener", "add", "explicit", "--bind", "10.1.0.1:3128")
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
    """Ask, and begin once it looks."""
    words = [*appliance.command, "trace", question, "--duration", "60s", "--output", "json", *flags]
    process = appliance.host.popen(words, env=appliance.env)
    try:
        process.expect("looking for", timeout=60)
        yield Traced(process)
    finally:
        if process.running:
            process.kill()


def programs(process: Process) -> set[int]:
    """Numbers of the kernel's programs that a command's child holds."""
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    texts = [path.read_text() for path in Path(f"/proc/{child}/fdinfo").iterdir()]
    return {int(number) for text in texts for number in re.findall(r"^prog_id:\s+(\d+)$", text, re.MULTILINE)}


def attached() -> set[int]:
    """Those that are in the kernel."""
    return {each["id"] for each in json.loads(subprocess.check_output(["bpftool", "-j", "prog", "list"]))}


def ask_http(port: int, times: int) -> None:
    with HTTP("10.1.0.1", port) as connection:
        for _ in range(times):
            connection.download(500)


def connects(port: int) -> bool:
    return reaches("10.1.0.1", port)


def reaches(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=TIMEOUT).close()
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
            with socket.create_connection(("10.1.0.1", 8090), timeout=TIMEOUT) as connection:
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
    opened = rig.client.call(socket.create_connection, ("10.1.0.1", 7007), TIMEOUT)
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
    words = [*appliance.command, "trace", "latency", "--duration", "60s"]
    process = appliance.host.popen(words, env=appliance.env)
    process.expect("looking for", timeout=60)
    held = programs(process)
    assert held <= attached()
    assert len(held) == 2
    rig.client.call(ask_http, 8080, 3)
    process.signal(signal.SIGINT)
    assert process.wait() == 0
    said = process.output()
    assert "web  connect: 1, mean " in said
    assert "web  request: 3, mean " in said
    assert "█" in said
    wait_for(lambda: not held & attached(), "the programs to be gone")


STRANGER = "10.2.1.2"
"""On no service's list; nobody listens there."""


def test_connections_of_others_are_not_measured(rig: Rig, appliance: Appliance) -> None:
    """A program of the host's own asks somebody who is no service; the daemon does so, too, by its proxy."""

    def tunnel() -> bytes:
        with socket.create_connection(("10.1.0.1", 3128), timeout=TIMEOUT) as connection:
            connection.sendall(b"CONNECT 10.2.2.2:80 HTTP/1.1\r\nHost: 10.2.2.2:80\r\n\r\n")
            return connection.recv(12)

    with traced(appliance, "latency") as asked, traced(appliance, "latency", "--all") as all_asked:
        assert not appliance.host.call(reaches, STRANGER, 80)
        assert rig.client.call(tunnel) == b"HTTP/1.1 200"
        rig.client.call(ask_http, 8080, 1)
        ours, everything = measured(asked.end()), measured(all_asked.end())
    assert ours == {("web", "connect"): 1, ("web", "request"): 1, ("10.2.2.2", "connect"): 1}
    assert everything == ours | {(STRANGER, "refused"): 1}


def test_flows_with_strangers_are_the_appliances(rig: Rig, appliance: Appliance) -> None:
    """Neither end is in a service: the flow table knows them, in both directions."""
    with traced(appliance, "latency") as asked:
        assert rig.servers[1].call(reaches, "10.2.2.2", 80)
        assert measured(asked.end()) == {("10.2.2.2", "connect"): 1}


def test_retransmits_of_others_are_not_told(rig: Rig, appliance: Appliance) -> None:
    stranger = rig.servers[1]
    stranger.ip("route add blackhole 10.2.1.1/32")

    def attempt(until: Traced) -> None:
        with socket.socket() as other, socket.socket() as ours:
            for connection, address in ((other, STRANGER), (ours, "10.2.0.2")):
                connection.setblocking(False)
                connection.connect_ex((address, 80))
            wait_for(lambda: len({row["destination"] for row in until.rows()}) == 2, "retransmits")

    try:
        with (
            lost(rig),
            traced(appliance, "retransmits") as asked,
            traced(appliance, "retransmits", "--all") as all_asked,
        ):
            appliance.host.call(attempt, all_asked)
            wait_for(asked.rows, "retransmits")
            assert {row["destination"] for row in asked.end()} == {"10.2.0.2"}
            assert {row["destination"] for row in all_asked.end()} == {"10.2.0.2", STRANGER}
    finally:
        stranger.ip("route del blackhole 10.2.1.1/32")


def test_drops_of_others_are_not_told(rig: Rig, appliance: Appliance) -> None:
    """A stranger's datagram to the host itself is none of ours; what our own programs drop of him is."""

    def provoke(*places: tuple[str, int]) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for place in places:
                sender.sendto(b"?", place)

    def dropped(rows: list[dict[str, Any]]) -> set[tuple[str, str, int]]:
        told = (row for row in rows if row["kind"] == "total" and row["source"] == STRANGER)
        return {(row["reason"], row["destination"], row["destination_port"]) for row in told}

    refused = {("TC_INGRESS", "10.2.2.2", 7)}
    foreign = {("NO_SOCKET", "10.2.1.1", 9999)}
    with traced(appliance, "drops") as asked, traced(appliance, "drops", "--all") as all_asked:
        rig.servers[1].call(provoke, ("10.2.1.1", 9999), ("10.2.2.2", 7))
        wait_for(lambda: any(row["source"] == STRANGER for row in asked.rows()), "the drop")
        assert dropped(asked.end()) == refused
        assert dropped(all_asked.end()) == refused | foreign


def test_dropped_frame_without_addresses(rig: Rig, appliance: Appliance) -> None:
    """It is ours where the interface is."""
    appliance.host.ip("link add aside type veth peer name beyond", "link set aside up", "link set beyond up")

    def send(device: str) -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((device, 0))
            sender.send(b"\xff" * 6 + bytes(6) + b"\x88\xcc" + bytes(50))

    def interfaces(rows: list[dict[str, Any]]) -> set[str]:
        return {row["interface"] for row in rows if row["protocol"] == "0x88cc"}

    try:
        with traced(appliance, "drops") as asked, traced(appliance, "drops", "--all") as all_asked:
            appliance.host.call(send, "beyond")
            rig.client.call(send, "eth0")
            wait_for(lambda: interfaces(asked.rows()), "the drop")
            rows = asked.end()
            assert interfaces(rows) == {"inside0"}
            assert interfaces(all_asked.end()) == {"inside0", "aside"}
        told = next(row for row in rows if row["protocol"] == "0x88cc")
        assert [told[name] for name in ("source", "source_port", "destination")] == [None] * 3
        assert (told["reason"], told["source_service"]) == ("UNHANDLED_PROTO", "")
    finally:
        appliance.host.ip("link del aside")


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
