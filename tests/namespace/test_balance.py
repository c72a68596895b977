"""Several backends, many connections."""

import socket
from collections import Counter

import pytest

from rig import Appliance, Rig, wait_for
from rig.traffic import HTTP, TIMEOUT, fetch

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

VIP, PORT = "10.1.0.1", 8081
TRIES = 300


def servers(rig: Rig, ports: range) -> dict[int, str]:
    """Which server answers each source port."""

    def ask() -> dict[int, str]:
        return {port: ask_from(port) for port in ports}

    return rig.client.call(ask)


def ask_from(port: int) -> str:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(TIMEOUT)
        sock.bind(("10.1.0.2", port))
        sock.connect((VIP, PORT))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    return answer.rsplit(b"server ", 1)[1].decode().strip()


def test_new_connections_spread_evenly_and_few_move_when_one_server_leaves(
    rig: Rig, appliance: Appliance
) -> None:
    ports = range(30000, 30000 + TRIES)
    before = servers(rig, ports)
    share = TRIES / 3
    assert all(share * 0.7 < count < share * 1.3 for count in Counter(before.values()).values())
    assert len(set(before.values())) == 3

    def keep_one() -> str:
        with HTTP(VIP, PORT) as connection:
            held = connection.get("/")
            appliance.cli("service", "set", "farm", "--address", "10.2.0.2,10.2.1.2")
            assert connection.get("/") == held
        return held.decode()

    try:
        rig.client.call(keep_one)
        after = servers(rig, range(31000, 31000 + TRIES))
        assert set(after.values()) == {"10.2.0.2", "10.2.1.2"}
        again = servers(rig, ports)
    finally:
        appliance.cli("service", "set", "farm", "--address", "10.2.0.2,10.2.1.2,10.2.2.2")
    stayed = [port for port in ports if before[port] != "10.2.2.2"]
    moved = [port for port in stayed if again[port] != before[port]]
    assert len(moved) <= len(stayed) * 0.15


def test_a_thousand_connections_at_once(rig: Rig, appliance: Appliance) -> None:
    def open_all() -> int:
        connections = [HTTP(VIP, 8080) for _ in range(1000)]
        try:
            return sum(b"server" in connection.get("/") for connection in connections)
        finally:
            for connection in connections:
                connection.close()

    assert rig.client.call(open_all) == 1000
    assert b"server" in rig.client.call(fetch, VIP, 8080)


def test_metrics_tell_what_the_kernel_compares(rig: Rig, appliance: Appliance) -> None:
    words = ("--from", "clients", "--to", "farm", "--protocol", "tcp", "--listen", f"{VIP}:8091")
    appliance.cli("mapping", "add", "least", *words, "--balance", "least-connections")
    prefix = "marchproxy_backend_active_flows{"

    def flows() -> list[float]:
        text = appliance.host.call(fetch, "127.0.0.1", 9090, "/metrics").decode()
        return [float(line.split()[-1]) for line in text.splitlines() if line.startswith(prefix)]

    def hold() -> None:
        connections = [HTTP(VIP, 8091) for _ in range(12)]
        try:
            assert all(b"server" in connection.get("/") for connection in connections)
            held = flows()
            assert len(held) == 3
            assert sum(held) == 12
        finally:
            for connection in connections:
                connection.close()

    try:
        rig.client.call(hold)
        wait_for(lambda: flows() == [0, 0, 0], "the last to have ended")
    finally:
        appliance.cli("mapping", "remove", "least", "--yes")
