"""Connection IDs that lead to the right process."""

import random
import socket
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.proxy.sockets import open_group
from marchproxy.dataplane.quic.steering import CONNECTION_ID, Steering, steer
from marchproxy.model.protocol import Transport
from marchproxy.policy.plan import Listener
from tests.dataplane.proxy.peers import free_port

SECRET = bytes(range(32))


def group(count: int) -> tuple[list[socket.socket], int]:
    port = free_port()
    return open_group(Listener(ip_address("127.0.0.1"), port, Transport.UDP, ()), count), port


def arrives(sockets: list[socket.socket]) -> int:
    """The index of the socket that a datagram waits in."""
    for index, each in enumerate(sockets):
        try:
            each.recv(2048)
        except BlockingIOError:
            continue
        return index
    raise AssertionError("nowhere")


def send(port: int, data: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(data, ("127.0.0.1", port))


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_a_connection_stays_with_its_process_wherever_its_client_is(count: int) -> None:
    sockets, port = group(count)
    steer(sockets[0], count)
    try:
        for index in range(count):
            own = Steering(SECRET, index, count).connection_id()
            for _ in range(10):
                send(port, b"\x40" + own + b"short header")
                assert arrives(sockets) == index
                send(port, b"\xe0\0\0\0\1\x08" + own + b"\0long header")
                assert arrives(sockets) == index
    finally:
        for each in sockets:
            each.close()


def test_by_the_hash_of_addresses_it_would_not() -> None:
    """Why there is a program at all."""
    sockets, port = group(4)
    try:
        found = set()
        for _ in range(60):
            send(port, b"\x40" + bytes(30))
            found.add(arrives(sockets))
        assert len(found) > 1
    finally:
        for each in sockets:
            each.close()


def test_the_first_packets_of_a_client_stay_together_and_clients_spread() -> None:
    sockets, port = group(4)
    steer(sockets[0], 4)
    chosen = random.Random(5)
    try:
        found = []
        for _ in range(64):
            made_up = chosen.randbytes(8)
            for _ in range(2):
                send(port, b"\xc0\0\0\0\1\x08" + made_up + bytes(20))
            first, second = arrives(sockets), arrives(sockets)
            assert first == second
            found.append(first)
        assert {found.count(index) > 4 for index in range(4)} == {True}
    finally:
        for each in sockets:
            each.close()


@pytest.mark.parametrize("datagram", [b"", b"\x40", b"\xc0\0", bytes(5)])
def test_what_is_too_short_goes_somewhere(datagram: bytes) -> None:
    sockets, port = group(3)
    steer(sockets[0], 3)
    try:
        send(port, datagram)
        assert 0 <= arrives(sockets) < 3
    finally:
        for each in sockets:
            each.close()


def test_a_process_that_joins_later_gets_nothing() -> None:
    sockets, port = group(2)
    steer(sockets[0], 2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", port))
        for _ in range(40):
            send(port, b"\x40" + random.Random(3).randbytes(40))
            arrives(sockets)
        with pytest.raises(BlockingIOError):
            other.recv(100)
    for each in sockets:
        each.close()


def test_ids_are_different_and_say_whose_they_are() -> None:
    own = Steering(SECRET, 2, 3)
    made = {own.connection_id() for _ in range(200)}
    assert len(made) == 200
    assert {len(each) for each in made} == {CONNECTION_ID}
    assert {each[0] % 3 for each in made} == {2}


def test_a_successor_knows_the_same_reset_tokens_and_others_do_not() -> None:
    one, heir, other = Steering(SECRET, 0, 2), Steering(SECRET, 0, 2), Steering()
    name = one.connection_id()
    assert one.reset_token(name) == heir.reset_token(name)
    assert one.reset_token(name) != other.reset_token(name)
    assert one.reset_token(name) != one.reset_token(one.connection_id())
