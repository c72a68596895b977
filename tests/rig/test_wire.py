"""A wire in a link: what it does to what goes through, and that it outlives the link."""

import socket
from collections.abc import Iterator

import pytest

from rig import Rig, wait_for
from rig.servers import start_echo
from rig.traffic import ask_udp
from rig.wire import Impairment, Wire, bad_link

pytestmark = pytest.mark.requires("root", "netns", "veth")

SERVER = "10.2.0.2"


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        built.forward()
        start_echo(built.server)
        yield built


@pytest.fixture(scope="module")
def wire(rig: Rig) -> Iterator[Wire]:
    with bad_link(rig, rig.server, Impairment()) as made:
        start_echo(rig.server, 8)
        yield made


def arrives(rig: Rig) -> bool:
    try:
        return rig.client.call(ask_udp, SERVER, 7, b"word", timeout=0.2) == b"word"
    except OSError:
        return False


def test_a_whole_link_carries(rig: Rig, wire: Wire) -> None:
    wait_for(lambda: arrives(rig), "a word to come back")


def test_nothing_goes_through_a_partition(rig: Rig, wire: Wire) -> None:
    with wire.bad(Impairment(loss=1.0)):
        wait_for(lambda: not arrives(rig), "the partition")
        assert not arrives(rig)
    wait_for(lambda: arrives(rig), "the end of the partition")


def test_damaged_datagrams_are_not_taken(rig: Rig, wire: Wire) -> None:
    with wire.bad(Impairment(corruption=1.0)):
        wait_for(lambda: not arrives(rig), "the damage")
    wait_for(lambda: arrives(rig), "the end of it")


def test_a_doubled_datagram_is_answered_twice(rig: Rig, wire: Wire) -> None:
    def answers() -> int:
        with rig.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.2)
            sock.connect((SERVER, 7))
            sock.send(b"word")
            count = 0
            try:
                while sock.recv(16) == b"word":
                    count += 1
            except TimeoutError:
                return count
            return -1

    wait_for(lambda: answers() == 1, "one of each")
    with wire.bad(Impairment(duplication=1.0)):
        # There and back.
        wait_for(lambda: answers() == 4, "two of each")


def test_an_interface_that_was_away_carries_again(rig: Rig, wire: Wire) -> None:
    wire.tear()
    assert not arrives(rig)
    wire.mend()
    rig.forward()
    wait_for(lambda: arrives(rig), "the link to carry again")
