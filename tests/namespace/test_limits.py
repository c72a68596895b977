"""Rate limits between real hosts: the rate, to whom it holds, and what the endpoints saw of it."""

import socket
import time
from collections.abc import Iterator
from threading import Thread

import pytest

from rig import Appliance, Rig
from rig.traffic import HTTP, TIMEOUT, Talk, fetch
from tests.namespace.conftest import define

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

VIP, SINK, ECHO = "10.1.0.1", 9009, 7007
RATE, SECONDS = 1000, 2.0
BEHIND = 0.02
"""Seconds that a sender may be late before it lets the rest be."""
LIMITED, SECOND, EXEMPT = "10.1.0.2", "10.1.0.3", "10.1.1.2"
"""Two addresses of the first client, and the second client."""
SO_RCVBUFFORCE = 33
"""Linux's number, which Python's socket module leaves out."""


@pytest.fixture(scope="module", params=["tc", "xdp"])
def appliance(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Appliance]:
    """With a mapping to a port where somebody only listens."""
    rig.client.ip(f"address replace {SECOND}/24 dev eth0")
    with Appliance(rig, name=f"limit-{request.param}") as built:
        define(built, mode=request.param)
        built.cli("service", "set", "clients", "--address", "10.1.0.0/16")
        built.cli("service", "add", "sink", "--address", "10.2.0.2", "--port", str(SINK))
        listen = ("--protocol", "udp", "--listen", f"*:{SINK}")
        built.cli("mapping", "add", "sink", "--from", "clients", "--to", "sink", *listen)
        built.start()
        yield built


@pytest.fixture
def limit(appliance: Appliance) -> Iterator[list[str]]:
    """Names of limits that a test adds, to be removed after it."""
    names: list[str] = []
    yield names
    for name in names:
        appliance.cli("limit", "remove", name, "--yes")


@pytest.fixture
def sink(rig: Rig) -> Iterator[socket.socket]:
    """Takes datagrams, and answers none."""
    with rig.server.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        sock.bind(("10.2.0.2", SINK))
        sock.setblocking(False)
        yield sock


def send(sock: socket.socket, source: str, per_second: int) -> tuple[float, float]:
    """Datagrams that begin with their source, evenly for SECONDS or longer; how long it really took, and how
    long of that it was kept from sending.

    Who was kept from sending catches up on a few and no more: links have room for some 200 at once.
    """
    sock.bind((source, 0))
    due = start = time.monotonic()
    kept = 0.0
    for _ in range(round(per_second * SECONDS)):
        while (now := time.monotonic()) < due:
            time.sleep(0.0005)
        kept += max(0.0, now - BEHIND - due)
        due = max(due, now - BEHIND) + 1 / per_second
        sock.sendto(source.encode(), (VIP if source.startswith("10.1.0.") else "10.1.1.1", SINK))
    return time.monotonic() - start, kept


def received(sink: socket.socket) -> dict[str, int]:
    """How many came, by source."""
    found: dict[str, int] = {}
    while True:
        try:
            source = sink.recv(64).decode()
        except BlockingIOError:
            return found
        found[source] = found.get(source, 0) + 1


def test_a_source_gets_its_rate_and_others_are_untouched(
    rig: Rig, appliance: Appliance, sink: socket.socket, limit: list[str]
) -> None:
    flags = ("--per", "source", "--packets-per-second", str(RATE), "--exempt", EXEMPT)
    limit.append(appliance.json("limit", "add", *flags)["name"])
    offered = {LIMITED: 2 * RATE, SECOND: RATE // 2, EXEMPT: 2 * RATE}
    sent: dict[str, tuple[float, float]] = {}
    threads = []
    for source, per_second in offered.items():
        host = rig.clients[1] if source == EXEMPT else rig.client
        sock = host.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)

        def work(sock: socket.socket = sock, source: str = source, per_second: int = per_second) -> None:
            with sock:
                sent[source] = send(sock, source, per_second)

        threads.append(Thread(target=work))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    came = received(sink)
    assert came[EXEMPT] == 2 * RATE * SECONDS
    assert came[SECOND] == RATE // 2 * SECONDS
    took, kept = sent[LIMITED]
    assert came[LIMITED] > 0.95 * RATE * (took - kept)
    assert came[LIMITED] < 1.05 * RATE * took + RATE / 10
    (row,) = appliance.json("limit", "list")
    assert row["passed_packets"] == came[LIMITED] + came[SECOND], "counters agree with the endpoints"
    assert row["dropped_packets"] == 2 * RATE * SECONDS - came[LIMITED]
    shown = appliance.json("flows", "--denied", "--reason", "RATE_LIMITED", "--port", str(SINK))
    assert {each["source"] for each in shown} == {LIMITED}
    assert len(shown) < 100, "told of once in a while, not for every packet"


def test_a_bulk_transfer_goes_at_the_rate_of_its_service(
    rig: Rig, appliance: Appliance, limit: list[str]
) -> None:
    per_second, size = 4_000_000, 6_000_000
    flags = ("--per", "service", "--service", "clients", "--bytes-per-second", "4M")
    limit.append(appliance.json("limit", "add", *flags)["name"])

    def download() -> float:
        with HTTP(VIP, 8080) as connection:
            start = time.monotonic()
            connection.download(size)
            return time.monotonic() - start

    took = rig.client.call(download)
    # What comes in the first tenth of a second is a burst, and one buffer may be owed.
    assert took > size / per_second - 0.2
    (row,) = appliance.json("limit", "list")
    assert size < row["passed_bytes"] < per_second * (took + 0.2) * 1.05


def test_a_flood_of_new_flows_leaves_old_ones_alone(rig: Rig, appliance: Appliance, limit: list[str]) -> None:
    flags = ("--per", "source", "--flows-per-second", "20", "--burst", "20")

    def flood() -> int:
        """SYNs from a thousand ports, with a conversation in between that goes on."""
        opened = []
        with Talk(VIP, ECHO) as talk:
            limit.append(appliance.json("limit", "add", *flags)["name"])
            for number in range(1000):
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex((VIP, ECHO))
                opened.append(sock)
                if number % 100 == 0:
                    assert talk.say(b"still here") == b"still here"
            assert talk.say(b"x" * 100_000) == b"x" * 100_000
            for sock in opened:
                sock.close()
        return len(opened)

    start = time.monotonic()
    count = rig.client.call(flood)
    most = 20 + 20 * (time.monotonic() - start) + 1
    (row,) = appliance.json("limit", "list")
    assert row["dropped_packets"] >= count - most
    rows = appliance.json("flows", "--source", LIMITED, "--port", str(ECHO))
    assert len(rows) <= most
    # Nobody else's are limited by it.
    assert b"server" in rig.clients[1].call(fetch, "10.1.1.1", 8080)


def test_limits_and_their_counts_outlive_the_daemon(
    rig: Rig, appliance: Appliance, sink: socket.socket, limit: list[str]
) -> None:
    flags = ("--name", "lasting", "--per", "source", "--packets-per-second", "1", "--burst", "50")
    limit.append(appliance.json("limit", "add", *flags)["name"])

    def knock() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((LIMITED, 0))
            for _ in range(100):
                sock.sendto(b"knock", (VIP, SINK))

    start = time.monotonic()
    rig.client.call(knock)
    came = received(sink)["knock"]
    appliance.kill9()
    rig.client.call(knock)
    came += received(sink).get("knock", 0)
    appliance.start()
    rig.client.call(knock)
    came += received(sink).get("knock", 0)
    assert 50 <= came <= 51 + time.monotonic() - start
    (row,) = appliance.json("limit", "list")
    assert (row["passed_packets"], row["dropped_packets"]) == (came, 300 - came)


def test_management_is_not_limited(rig: Rig, appliance: Appliance, limit: list[str]) -> None:
    flags = ("--per", "source", "--packets-per-second", "1", "--burst", "1")
    limit.append(appliance.json("limit", "add", *flags)["name"])

    def log_in() -> bytes:
        with socket.create_connection((VIP, 22), timeout=TIMEOUT) as sock:
            return b"".join(iter(lambda: sock.recv(100), b""))

    with rig.middle.call(socket.create_server, (VIP, 22)) as server:
        server.settimeout(TIMEOUT)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                for _ in range(20):
                    connection.sendall(b"prompt")

        thread = Thread(target=serve)
        thread.start()
        assert rig.client.call(log_in) == b"prompt" * 20
        thread.join()
