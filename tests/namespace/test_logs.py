"""What the appliance tells of its flows is what clients and servers have counted, or is counted as lost."""

import csv
import io
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rig import Appliance, Rig, wait_for
from rig.process import Process
from rig.servers import start_echo
from rig.traffic import TIMEOUT, ask_udp

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["nfcapd", "nfdump"])

ASKED, SIZE, HEADERS = 12, 100, 28
FLOOD, AT_ONCE = 11_000, 250
FORMAT = "fmt:%sa,%sp,%da,%dp,%pr,%pkt,%byt"


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=1, servers=1) as built:
        start_echo(built.server)
        yield built


@pytest.fixture
def appliance(rig: Rig, request: pytest.FixtureRequest) -> Iterator[Appliance]:
    """One for each test: what another's flood has left ends bit by bit, and would be counted here."""
    with Appliance(rig, name=f"a{abs(hash(request.node.name)) % 10**6}") as built:
        built.cli("init")
        built.cli("interface", "add", "inside0", "--role", "inside")
        built.cli("interface", "add", "outside0", "--role", "outside")
        built.cli("service", "add", "lan", "--address", "10.1.0.0/24")
        built.cli("service", "add", "far", "--address", "10.2.0.2")
        built.cli("mapping", "add", "out", "--from", "lan", "--to", "far", "--protocol", "udp")
        built.cli("appliance", "set", "--timeout-udp", "2s", "--timeout-udp-unanswered", "2s")
        built.start()
        yield built


@pytest.fixture(scope="module")
def syslog(rig: Rig) -> Iterator[socket.socket]:
    """A server that hears everything and answers nothing."""
    with rig.server.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("10.2.0.2", 514))
        server.settimeout(20)
        yield server


@pytest.fixture
def flows(rig: Rig, tmp_path: Path) -> Iterator[tuple[Process, Path]]:
    """A collector, and where it stores what it takes."""
    folder = tmp_path / "flows"
    folder.mkdir()
    process = rig.server.popen(["nfcapd", "-w", str(folder), "-b", "10.2.0.2", "-p", "4739", "-t", "3600"])
    process.expect("Startup")
    yield process, folder
    if process.running:
        process.kill()


def metric(appliance: Appliance, name: str, labels: str = "") -> int:
    """The sum of a metric's samples whose labels hold a text."""
    text = appliance.host.run(["curl", "-s", "http://127.0.0.1:9090/metrics"]).stdout
    found = re.findall(rf"^{name}(?:{{(.*)}})? ([\d.e+]+)$", text, re.MULTILINE)
    assert found, name
    return int(sum(float(value) for own, value in found if labels in own))


def test_records_have_the_counts_of_both_ends(
    rig: Rig, appliance: Appliance, syslog: socket.socket, flows: tuple[Process, Path]
) -> None:
    collector, folder = flows
    where = ["--syslog", "udp://10.2.0.2:514", "--log-netflow", "--ipfix", "udp://10.2.0.2:4739"]
    appliance.cli("cluster", "set", "default", *where)

    def talk() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(TIMEOUT)
            client.connect(("10.2.0.2", 7))
            for number in range(ASKED):
                client.send(bytes([number]) * SIZE)
                assert client.recv(SIZE + 1) == bytes([number]) * SIZE
            return int(client.getsockname()[1])

    port = rig.client.call(talk)
    with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
        rig.client.call(socket.create_connection, ("10.2.0.2", 9999), TIMEOUT)

    seen = {}
    while "flow-end" not in seen or "denied" not in seen:
        text = syslog.recv(4096).decode()
        seen[text.split()[5]] = dict(re.findall(r' (\w+)="([^"]*)"', text))
    octets = str(ASKED * (SIZE + HEADERS))
    ended, denied = seen["flow-end"], seen["denied"]
    assert (ended["source"], ended["source_port"], ended["reason"]) == ("10.1.0.2", str(port), "IDLE")
    assert (ended["packets_sent"], ended["bytes_sent"]) == (str(ASKED), octets)
    assert (ended["packets_received"], ended["bytes_received"]) == (str(ASKED), octets)
    assert seen["flow-start"]["id"] == ended["id"]
    assert (denied["destination_port"], denied["reason"]) == ("9999", "NO_MAPPING")

    wait_for(lambda: metric(appliance, "marchproxy_log_records_total", 'result="sent",sink="ipfix"') == 2, "")
    collector.stop()
    done = subprocess.run(
        ["nfdump", "-q", "-N", "-R", folder, "-o", FORMAT], capture_output=True, text=True, check=True
    )
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(done.stdout)) if len(row) == 7]
    assert sorted(rows)[:2] == sorted(
        [
            ["10.1.0.2", str(port), "10.2.0.2", "7", "17", str(ASKED), octets],
            ["10.1.0.2", denied["source_port"], "10.2.0.2", "9999", "6", denied["count"], "0"],
        ]
    )
    assert ["10.2.0.2", "7", "10.1.0.2", str(port), "17", str(ASKED), octets] in rows


@pytest.mark.timeout(180)  # After a flood the sweep takes its time, so as to cost little.
@pytest.mark.parametrize("collector", ["udp://10.2.0.2:514", "tcp://10.2.0.2:9999"])
def test_each_flow_of_a_flood_is_told_waits_or_is_counted_as_lost(
    rig: Rig, appliance: Appliance, syslog: socket.socket, collector: str
) -> None:
    """The second collector is not there: what the queue does not hold is lost, and counted."""
    appliance.cli("cluster", "set", "default", "--syslog", collector, "--log-netflow", "--ipfix", "")

    def told() -> int:
        records = metric(appliance, "marchproxy_log_records_total", 'sink="syslog"')
        waiting = metric(appliance, "marchproxy_log_queue", 'sink="syslog"')
        return records + waiting + metric(appliance, "marchproxy_lost_events_total")

    def flood() -> None:
        for first in range(10_000, 10_000 + FLOOD, AT_ONCE):
            with ExitStack() as opened:
                clients = [
                    opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    for _ in range(AT_ONCE)
                ]
                for number, client in enumerate(clients, first):
                    client.settimeout(TIMEOUT)
                    client.bind(("10.1.0.2", number))
                    client.sendto(b"", ("10.2.0.2", 7))
                for client in clients:
                    client.recv(1)

    def live() -> int:
        return len(appliance.json("flows", "--limit", "1000000"))

    lived, before = live(), told()
    rig.client.call(flood)
    # Each has begun, and what is not there any more has ended.
    wait_for(lambda: told() - before == FLOOD + lived + FLOOD - live(), "every event", timeout=60)
    if collector.startswith("tcp"):
        full = metric(appliance, "marchproxy_log_records_total", 'result="full",sink="syslog"')
        assert full + metric(appliance, "marchproxy_lost_events_total") > 0
        assert metric(appliance, "marchproxy_log_up", 'sink="syslog"') == 0
    # Nobody who carries traffic was kept waiting by that.
    assert rig.client.call(ask_udp, "10.2.0.2", 7, b"still there") == b"still there"
