"""What metrics say was carried, by mapping and service, is what clients have counted, to the byte."""

import socket
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rig import Appliance, Rig, wait_for
from rig.traffic import TIMEOUT, fetch
from tests.namespace.conftest import define

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs")

QUESTIONS, SIZE = 120, 300
HEADERS = 20 + 8
"""Of IPv4 and UDP: flows of the kernel count IP lengths, sockets payload."""

type Sums = dict[str, float]


@pytest.fixture(params=["kernel", "sockets"])
def carrying(request: pytest.FixtureRequest, rig: Rig) -> Iterator[tuple[Appliance, str]]:
    with Appliance(rig, name=f"{request.node.originalname}-{request.param}"[-40:]) as built:
        define(built)
        built.cli("listener", "add", "explicit", "--bind", "10.1.0.1:3128")
        words = ("--from", "clients", "--to", "echo", "--protocol", "tcp", "--ports", "7")
        built.cli("mapping", "add", "proxied", *words)
        built.start(*(("--no-bpf",) if request.param == "sockets" else ()))
        yield built, str(request.param)


def _talk(port: int, questions: int) -> int:
    """Bytes that came back by UDP; each question waits for the answer to the last."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT)
        client.bind(("", port))
        client.connect(("10.1.0.1", 7007))
        return sum(len(client.recv(65536)) for _ in range(questions) if client.send(bytes(SIZE)))


def _tunnel(size: int) -> None:
    """Both ways through the explicit proxy, and the end of it."""
    with socket.create_connection(("10.1.0.1", 3128), 10) as client:
        client.sendall(b"CONNECT 10.2.0.2:7 HTTP/1.1\r\nHost: 10.2.0.2:7\r\n\r\n")
        assert b" 200 " in client.recv(65536)
        client.sendall(bytes(size))
        assert len(client.recv(size, socket.MSG_WAITALL)) == size


def _sums(appliance: Appliance, **labels: str) -> Sums:
    """Of all series of what was carried with these labels: flows, and packets and bytes of each direction."""
    text = appliance.host.call(fetch, "127.0.0.1", 9090, "/metrics").decode()
    found: Sums = {}
    for family in text_string_to_metric_families(text):
        what, _, unit = family.name.removeprefix("marchproxy_").partition("_")
        if what in ("mapping", "service") and unit in ("flows", "packets", "bytes"):
            for sample in family.samples:
                if labels.items() <= sample.labels.items():
                    key = f"{unit} {sample.labels.get('direction', '')}".strip()
                    found[key] = found.get(key, 0) + sample.value
    return found


def _whole(flows: int, packets: int, octets: int) -> Sums:
    """As much each way."""
    found: Sums = {"flows": flows}
    return found | {
        f"{unit} {way}": count
        for unit, count in (("packets", packets), ("bytes", octets))
        for way in ("sent", "received")
    }


def test_live_and_ended_flows_count_once(rig: Rig, carrying: tuple[Appliance, str]) -> None:
    appliance, tier = carrying
    each = SIZE + (HEADERS if tier == "kernel" else 0)
    assert rig.client.call(_talk, 40001, QUESTIONS) == QUESTIONS * SIZE
    views = (
        {"mapping": "echo", "tier": tier},
        {"service": "clients", "side": "source", "tier": tier},
        {"service": "echo", "side": "destination", "tier": tier},
    )

    def says(expected: Sums) -> bool:
        return all(_sums(appliance, **labels) == expected for labels in views)

    wait_for(lambda: says(_whole(1, QUESTIONS, QUESTIONS * each)), "the live flow to be counted")
    # It goes on, is ended, and counts no more for that.
    rig.client.call(_talk, 40001, 5)
    (row,) = appliance.json("flows", "--port", "40001")
    appliance.cli("flows", "cut", str(row["id"]))
    expected = _whole(1, QUESTIONS + 5, (QUESTIONS + 5) * each)
    wait_for(lambda: says(expected), "the ended flow to be counted")
    rig.client.call(_talk, 40002, 3)
    expected = _whole(2, QUESTIONS + 8, (QUESTIONS + 8) * each)
    wait_for(lambda: says(expected), "another flow to be counted")


def test_tunnels_count_where_they_are_carried(rig: Rig, carrying: tuple[Appliance, str]) -> None:
    appliance, _ = carrying
    rig.client.call(_tunnel, 4000)

    def octets() -> tuple[float, ...]:
        found = _sums(appliance, mapping="proxied", tier="sockets")
        return tuple(found.get(key, 0) for key in ("flows", "bytes sent", "bytes received"))

    wait_for(lambda: octets() == (1, 4000, 4000), "the tunnel to be counted")
    assert octets() == (1, 4000, 4000)


@pytest.mark.parametrize("carrying", ["kernel"], indirect=True)
def test_a_restart_counts_nothing_again(rig: Rig, carrying: tuple[Appliance, str]) -> None:
    appliance, tier = carrying
    rig.client.call(_talk, 40003, QUESTIONS)
    labels = {"mapping": "echo", "tier": tier}
    wait_for(lambda: _sums(appliance, **labels).get("flows") == 1, "the flow to be counted")
    appliance.restart()
    found: list[Sums] = []

    def counted() -> bool:
        """Once it is known what the flow had carried before, what it carries counts."""
        rig.client.call(_talk, 40003, 1)
        found.append(_sums(appliance, **labels))
        return found[-1].get("packets sent", 0) > 0

    wait_for(counted, "what the flow carries now")
    assert found[-1]["flows"] == 0
    assert found[-1]["packets sent"] <= len(found)
    assert found[-1]["bytes sent"] == found[-1]["packets sent"] * (SIZE + HEADERS)
