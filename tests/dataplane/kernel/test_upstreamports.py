"""upstreamports: a port of the flows' range that neither a flow nor a socket has."""

import errno
import random
import selectors
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel import layouts, upstreamports
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.kernel.upstreamports import UpstreamPorts
from marchproxy.model.address import IPAddress
from tests.dataplane.kernel.fakes import FakeMap
from tests.dataplane.loops import PATIENCE

pytestmark = pytest.mark.requires("root", "netns", "ipv6")


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest, namespace: None) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as made:
        yield made


class Establishing(FakeMap):
    """Flows that are being opened, and stand before anybody has looked for them here."""

    def __init__(self, flows: FakeMap) -> None:
        super().__init__("opening")
        self._flows = flows

    def has(self, key: bytes) -> bool:
        for each in list(self.entries):
            self._flows.entries[each] = self.entries.pop(each)
        return super().has(key)


class Ports:
    """Upstream ports beside tables of flows."""

    def __init__(self, listener: socket.socket, ports: NatPorts, *, establishing: bool = False) -> None:
        flows = FakeMap("flows")
        self.maps = {"flows": flows, "opening": Establishing(flows) if establishing else FakeMap("opening")}
        self.target: IPAddress = ip_address(listener.getsockname()[0])
        self.port: int = listener.getsockname()[1]
        self._ports = UpstreamPorts(self.maps, ports)

    def open(self) -> socket.socket:
        return self._ports.open(self.target, self.port)

    def take(self, table: str, port: int) -> None:
        """A flow has that port towards the target, which here is its own source as well."""
        own = layouts.pack_address(self.target)
        ports = layouts.pack_port(self.port), layouts.pack_port(port)
        self.maps[table].set(layouts.FLOW_KEY.struct.pack(own, own, *ports, layouts.TCP), b"flow")


def connected(sock: socket.socket) -> bool:
    with selectors.DefaultSelector() as waiting:
        waiting.register(sock, selectors.EVENT_WRITE)
        waiting.select(PATIENCE)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_it_connects_from_a_port_of_the_range_without_blocking(listener: socket.socket) -> None:
    with Ports(listener, NatPorts(20000, 100)).open() as opened:
        assert 20000 <= opened.getsockname()[1] < 20100
        assert opened.getblocking() is False
        assert connected(opened)


def test_ports_are_taken_in_turn(listener: socket.socket) -> None:
    ports = Ports(listener, NatPorts(20000, 4))
    opened = [ports.open() for _ in range(4)]
    assert sorted(sock.getsockname()[1] for sock in opened) == [20000, 20001, 20002, 20003]
    for sock in opened:
        sock.close()


@pytest.mark.parametrize("table", ["flows", "opening"])
def test_a_flows_port_is_passed_over(
    listener: socket.socket, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No SYN leaves from it: the server would have it within that flow's conversation."""
    ports, tried = Ports(listener, NatPorts(20000, 3)), []
    connect = upstreamports._connect

    def told(source: tuple[str, int], target: tuple[str, int]) -> socket.socket | None:
        tried.append(source[1])
        return connect(source, target)

    monkeypatch.setattr(upstreamports, "_connect", told)
    ports.take(table, 20000)
    ports.take(table, 20002)
    with ports.open() as opened:
        assert opened.getsockname()[1] == 20001
    assert tried == [20001]


def test_a_flow_that_came_while_it_connected_is_seen_wherever_it_is_by_then(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = Ports(listener, NatPorts(20000, 2), establishing=True)
    flows = ports.maps["flows"]
    connect = upstreamports._connect

    def overtaken(source: tuple[str, int], target: tuple[str, int]) -> socket.socket | None:
        made = connect(source, target)
        if not flows.entries:
            ports.take("opening", source[1])
        return made

    monkeypatch.setattr(upstreamports, "_connect", overtaken)
    with ports.open() as opened:
        [key] = flows.entries
        claimed = layouts.FLOW_KEY.struct.unpack(key)[3]
        assert layouts.pack_port(opened.getsockname()[1]) != claimed


def test_what_another_worker_holds_in_a_row_is_passed_over(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = iter([0, 100, 900])
    monkeypatch.setattr(random, "randrange", lambda _: next(starts))
    ports = Ports(listener, NatPorts(20000, 1000))
    for port in range(20000, 20500):
        ports.take("flows", port)
    with ports.open() as opened, ports.open() as after:
        assert (opened.getsockname()[1], after.getsockname()[1]) == (20900, 20901)


def test_a_sockets_port_is_passed_over_and_none_left_is_said(listener: socket.socket) -> None:
    ports = Ports(listener, NatPorts(20000, 2))
    with ports.open(), ports.open(), pytest.raises(OSError, match="in use") as refused:
        ports.open()
    assert refused.value.errno == errno.EADDRNOTAVAIL


def test_without_a_route_nothing_is_tried(namespace: None) -> None:
    maps = {"flows": FakeMap("flows"), "opening": FakeMap("opening")}
    with pytest.raises(OSError, match="no route") as refused:
        UpstreamPorts(maps).open(ip_address("192.0.2.1"), 80)
    assert refused.value.errno == errno.ENETUNREACH
