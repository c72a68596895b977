"""From events to records, and a whole daemon that logs."""

import json
import re
import signal
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from marchproxy.dataplane.export import record_of
from marchproxy.dataplane.records import Event, EventKind
from marchproxy.model.reason import Reason, Tier
from marchproxy.telemetry.logs.records import LogClass
from tests.dataplane import facts
from tests.dataplane.daemons import command, configure, serving
from tests.dataplane.proxy.peers import free_port
from tests.dataplane.test_supervisor import echo_server

AUTH, FLOW = {LogClass.AUTH, LogClass.NETFLOW}, {LogClass.NETFLOW}


@pytest.mark.parametrize(
    ("kind", "tier", "reason", "classes"),
    [
        (EventKind.FLOW_START, Tier.TC, Reason.FORWARDED, FLOW),
        (EventKind.FLOW_START, Tier.SOCKETS, Reason.FORWARDED, AUTH),
        (EventKind.FLOW_END, Tier.SOCKETS, Reason.CLOSED, FLOW),
        (EventKind.FLOW_END, Tier.TC, Reason.AUTH_REVOKED, AUTH),
        (EventKind.DENIED, Tier.TC, Reason.NO_MAPPING, FLOW),
        (EventKind.DENIED, Tier.TC, Reason.AUTH_MISSING, AUTH),
        (EventKind.DENIED, Tier.SOCKETS, Reason.NO_MAPPING, AUTH),
        (EventKind.AUDITED, Tier.XDP, Reason.NO_MAPPING, FLOW),
    ],
)
def test_what_is_of_which_class(kind: EventKind, tier: Tier, reason: Reason, classes: set[LogClass]) -> None:
    assert record_of(Event(kind, facts.decision(reason=reason, tier=tier))).classes == classes


@pytest.mark.parametrize(
    ("fields", "cluster"),
    [
        ({"mapping": "lab/m", "source_service": "shop/s"}, "lab"),
        ({"mapping": "", "source_service": "shop/s", "destination_service": "lab/d"}, "shop"),
        ({"mapping": "", "destination_service": "lab/d"}, "lab"),
        ({"mapping": ""}, "default"),
        ({"mapping": "m"}, "default"),
    ],
)
def test_whose_a_record_is(fields: dict[str, Any], cluster: str) -> None:
    assert record_of(Event(EventKind.DENIED, replace(facts.decision(), **fields))).cluster == cluster


def test_a_flow_brings_its_counts() -> None:
    flow = facts.flow(replace(facts.decision(), id=9))
    carried = record_of(Event(EventKind.FLOW_END, flow.decision, flow)).carried
    assert carried is not None
    assert (carried.backend, carried.backend_port) == (ip_address("10.9.0.1"), 8443)
    assert (carried.packets_sent, carried.bytes_sent) == (2, 300)
    assert (carried.packets_received, carried.bytes_received) == (4, 5000)


@contextmanager
def syslog() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        yield server


def heard(server: socket.socket, kind: str) -> dict[str, str]:
    """The parameters of the next message of that kind."""
    while True:
        text = server.recv(4096).decode()
        if text.split()[5] == kind:
            return dict(re.findall(r' (\w+)="([^"]*)"', text))


def converse(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"


def target(server: socket.socket) -> str:
    return f"udp://127.0.0.1:{server.getsockname()[1]}"


def lay_out(folder: Path, port: int, backend: int) -> None:
    configure(
        folder,
        {
            "name": "open",
            "sources": ["all"],
            "destinations": ["web"],
            "protocols": ["tcp"],
            "listen": f"127.0.0.1:{port}",
        },
        services=[{"name": "web", "addresses": ["127.0.0.1"], "port": backend}],
    )


def test_a_daemon_logs_what_is_switched_on_while_it_runs(tmp_path: Path) -> None:
    port, metrics = free_port(), free_port()
    with echo_server() as backend, syslog() as server:
        lay_out(tmp_path, port, backend)
        listen = {"MARCHPROXY_METRICS_LISTEN": f"127.0.0.1:{metrics}"}
        with serving(tmp_path, **listen) as daemon:
            converse(port)
            words = ["cluster", "set", "default", "--syslog", target(server), "--log-netflow"]
            assert command(tmp_path, *words).returncode == 0
            converse(port)
            started, ended = heard(server, "flow-start"), heard(server, "flow-end")
            assert started["id"] == ended["id"]
            assert (ended["mapping"], ended["destination_service"]) == ("open", "web")
            assert (ended["bytes_sent"], ended["bytes_received"]) == ("5", "5")
            [sink] = daemon.status()["sinks"]
            assert (sink["cluster"], sink["kind"], sink["target"]) == ("default", "syslog", target(server))
            assert sink["lost"] == {"full": 0, "refused": 0, "unsent": 0}
            scrape = urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics").read().decode()
            assert 'marchproxy_log_up{cluster="default",sink="syslog"} 1.0' in scrape
            assert 'marchproxy_packets_total{by="sockets",reason="FORWARDED"}' in scrape
            assert command(tmp_path, "cluster", "set", "default", "--log-debug").returncode == 0
            # What is said from then on: that the next revision is applied.
            assert command(tmp_path, "appliance", "set", "--timeout-udp", "2m").returncode == 0
            said = heard(server, "log")
            assert said["logger"].startswith("marchproxy.dataplane")
            assert command(tmp_path, "cluster", "set", "default", "--syslog", "").returncode == 0
            assert daemon.status()["sinks"] == []


def test_what_a_daemon_was_told_last_leaves_before_it_ends(tmp_path: Path) -> None:
    port = free_port()
    with echo_server() as backend, syslog() as server:
        lay_out(tmp_path, port, backend)
        words = ["cluster", "set", "default", "--syslog", target(server), "--log-netflow"]
        assert command(tmp_path, *words).returncode == 0
        with serving(tmp_path) as daemon, socket.create_connection(("127.0.0.1", port), 5) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
            heard(server, "flow-start")
            daemon.signal(signal.SIGTERM)
            client.close()
            assert daemon.ended() == 0
        assert heard(server, "flow-end")["bytes_sent"] == "5"


def test_a_collector_that_is_not_there_is_a_problem_and_no_more(tmp_path: Path) -> None:
    port, dead = free_port(), free_port()
    with echo_server() as backend:
        lay_out(tmp_path, port, backend)
        words = ["--syslog", f"tcp://127.0.0.1:{dead}", "--log-netflow"]
        assert command(tmp_path, "cluster", "set", "default", *words).returncode == 0
        with serving(tmp_path) as daemon:
            converse(port)
            while not (problems := daemon.status()["problems"]):
                pass
            assert problems == [
                f"logs: syslog of cluster default: tcp://127.0.0.1:{dead}: Connection refused"
            ]
            converse(port)


def test_lines_may_be_json(tmp_path: Path) -> None:
    configure(tmp_path, services=[])
    with serving(tmp_path, MARCHPROXY_LOG_FORMAT="json") as daemon:
        lines = [json.loads(line) for line in daemon.said().splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    assert any("is ready" in line["message"] for line in lines)


def test_a_format_that_there_is_not_is_refused(tmp_path: Path) -> None:
    done = command(tmp_path, "run", "--log-format", "xml")
    assert done.returncode == 5
    assert "console or json" in done.stderr
