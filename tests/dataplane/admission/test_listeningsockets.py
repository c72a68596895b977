"""listeningsockets: opened whole or not at all, kept for the next daemon, closed when nobody wants them."""

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from marchproxy.dataplane.admission.listeningsockets import (
    ListeningSockets,
    Prepared,
    explicit_listeners,
    wanted_by,
)
from marchproxy.dataplane.fdstore import DescriptorStore, store_name
from marchproxy.dataplane.notify import Notifier
from marchproxy.dataplane.proxy.sockets import open_listener
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.errors import Conflict
from marchproxy.model.protocol import Transport
from marchproxy.policy.plan import Listener, ListenerKey, Plan
from tests.dataplane.loops import PATIENCE
from tests.dataplane.proxy.peers import free_port
from tests.policy import build
from tests.policy.build import mapping, service


def explicit(*ports: int, address: str = "127.0.0.1") -> Plan:
    return replace(Plan(), explicit=tuple(Endpoint(ip_address(address), port) for port in ports))


class Taker:
    """Writes down what it is given."""

    def __init__(self) -> None:
        self.wanted: frozenset[ListenerKey] = frozenset()
        self.opened: list[int] = []

    def adopt(
        self,
        plan: Plan,
        revision: int,
        wanted: frozenset[ListenerKey],
        opened: Mapping[ListenerKey, socket.socket],
    ) -> None:
        self.wanted = wanted
        self.opened = [key.port for key in opened]


def apply(sockets: ListeningSockets, plan: Plan) -> Taker:
    taker = Taker()
    Prepared(taker, sockets, plan, sockets.open(plan)).commit(1)
    return taker


@pytest.fixture
def sockets() -> Iterator[ListeningSockets]:
    made = ListeningSockets()
    yield made
    made.close()


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_plan_opens_what_is_new_and_closes_what_is_gone(sockets: ListeningSockets) -> None:
    first, second, third = free_port(), free_port(), free_port()
    assert apply(sockets, explicit(first, second)).opened == [first, second]
    taker = apply(sockets, explicit(second, third))
    assert taker.opened == [third]
    assert {key.port for key in taker.wanted} == {second, third}
    assert [accepts(port) for port in (first, second, third)] == [False, True, True]


def test_one_that_cannot_be_opened_opens_none(sockets: ListeningSockets) -> None:
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(Conflict, match="another program"):
            sockets.open(explicit(free, taken.getsockname()[1]))
        assert len(os.listdir("/proc/self/fd")) == before
    assert not accepts(free)


def test_what_is_abandoned_is_closed(sockets: ListeningSockets) -> None:
    port = free_port()
    Prepared(Taker(), sockets, explicit(port), sockets.open(explicit(port))).abandon()
    assert not accepts(port)
    assert not sockets.held


def test_a_wildcard_needs_no_socket_of_a_single_address_beside_it() -> None:
    both = replace(Plan(), explicit=(Endpoint(None, 3128), Endpoint(ip_address("127.0.0.1"), 3128)))
    assert len(explicit_listeners(both)) == 3
    assert all(key.address == 0 for key in wanted_by(both))


def test_sockets_to_which_connections_are_diverted_are_served_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as diverted:
        sockets = ListeningSockets(diverted=lambda: (diverted,))
        port = diverted.getsockname()[1]
        assert apply(sockets, Plan()).opened == [port]
        again = apply(sockets, Plan())
        assert (again.opened, {key.port for key in again.wanted}) == ([], {port})
        sockets.close()
        assert accepts(port), "they are the tier's"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(PATIENCE)
        yield listening


@pytest.fixture
def left_behind() -> Iterator[socket.socket]:
    """What an earlier daemon has opened; like the manager, this goes on holding it."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield held


def inheriting(held: socket.socket) -> ListeningSockets:
    name = store_name(Transport.TCP, ip_address("127.0.0.1"), port_of(held))
    return ListeningSockets(store=DescriptorStore(Notifier(), {name: held.dup()}))


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def test_what_is_inherited_survives_a_plan_that_cannot_be_opened(left_behind: socket.socket) -> None:
    sockets, port = inheriting(left_behind), port_of(left_behind)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Conflict):
        sockets.open(explicit(port, port_of(taken)))
    assert apply(sockets, explicit(port)).opened == [port]
    sockets.close()


def test_what_is_inherited_survives_a_plan_that_a_tier_refuses(left_behind: socket.socket) -> None:
    sockets, port = inheriting(left_behind), port_of(left_behind)
    for _ in range(2):
        Prepared(Taker(), sockets, explicit(port), sockets.open(explicit(port))).abandon()
    assert apply(sockets, explicit(port)).opened == [port]
    sockets.close()


def test_what_is_inherited_and_not_wanted_is_closed_once_a_plan_is_in_force(
    left_behind: socket.socket,
) -> None:
    sockets, port, other = inheriting(left_behind), port_of(left_behind), free_port()
    left_behind.close()
    Prepared(Taker(), sockets, explicit(other), sockets.open(explicit(other))).abandon()
    assert accepts(port), "nothing is in force, and clients may wait there"
    apply(sockets, explicit(other))
    assert not accepts(port)
    sockets.close()


def test_what_is_inherited_gives_way_to_its_wildcard(left_behind: socket.socket) -> None:
    sockets, port = inheriting(left_behind), port_of(left_behind)
    assert apply(sockets, explicit(port, address="0.0.0.0")).opened == [port]
    sockets.close()


def test_what_is_inherited_gives_way_to_the_tier(left_behind: socket.socket) -> None:
    """Where the listener has moved to it, whether admission has taken the socket before or not."""
    sockets, port = inheriting(left_behind), port_of(left_behind)
    moved = Listener(ip_address("127.0.0.1"), port, Transport.TCP, ())
    open_listener(moved).close()
    apply(sockets, explicit(port))
    open_listener(moved).close()
    sockets.close()


def test_what_the_service_manager_holds_goes_on(manager: socket.socket) -> None:
    notifier, port = Notifier(manager.getsockname()), free_port()
    first = ListeningSockets(store=DescriptorStore(notifier, {}))
    apply(first, explicit(port))
    message, descriptors, _, _ = socket.recv_fds(manager, 4096, 4)
    name = message.decode().split("FDNAME=")[1].split()[0]
    first.close()
    with socket.create_connection(("127.0.0.1", port)) as waiting:
        inherited = {name: socket.socket(fileno=descriptors[0])}
        second = ListeningSockets(store=DescriptorStore(notifier, inherited))
        apply(second, explicit(port))
        (sock,) = second.held.values()
        sock.settimeout(PATIENCE)
        client, _ = sock.accept()
        assert client.getpeername() == waiting.getsockname()
        client.close()
        apply(second, Plan())
        assert manager.recv(4096).decode().splitlines() == ["FDSTOREREMOVE=1", f"FDNAME={name}"]
    notifier.close()


def test_where_http3_is_spoken_each_process_has_a_socket_over_udp() -> None:
    sockets, port = ListeningSockets(processes=3), free_port()
    made = http3(port)
    taker = apply(sockets, made)
    assert {key.transport for key in taker.wanted} == {6, 17}
    own = next(key for key in taker.wanted if key.transport == 17)
    group = [sockets.of_process(own, index) for index in range(3)]
    assert len({each.fileno() for each in group}) == 3
    assert {each.getsockname() for each in group} == {("127.0.0.1", port)}
    # The same plan leaves them alone, one without takes them away.
    assert apply(sockets, made).opened == []
    assert [sockets.of_process(own, index) for index in range(3)] == group
    apply(sockets, explicit(free_port()))
    assert {each.fileno() for each in group} == {-1}
    sockets.close()


def test_a_plan_whose_udp_port_another_program_has_changes_nothing() -> None:
    sockets, port = ListeningSockets(processes=2), free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", port))
        with pytest.raises(Conflict, match="udp"):
            sockets.open(http3(port))
    assert not sockets.held
    assert not accepts(port)


def http3(port: int) -> Plan:
    web = service("web", "127.0.0.2", port=80)
    made = mapping("www", "all", "web", f"127.0.0.1:{port}", "https,quic", tls="proxy")
    return build.plan(web, made)
