"""The rig itself: hosts that reach each other, and nothing left of them."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import Rig, RigError
from rig.lifecycle import NETNS
from rig.network import LISTEN4, LISTEN6
from rig.offload import Offload, is_on
from rig.servers import start_echo
from rig.traffic import ask_tcp, ask_udp
from rig.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.requires("root", "netns", "veth")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=2, servers=2) as built:
        for server in built.servers:
            start_echo(server)
        built.forward()
        yield built


@pytest.mark.parametrize("client", [0, 1])
@pytest.mark.parametrize("server", [0, 1])
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_every_client_reaches_every_server(rig: Rig, client: int, server: int, family: str) -> None:
    address = getattr(rig.servers[server], family)
    assert rig.clients[client].call(ask_tcp, address, 7, b"tcp") == b"tcp"
    assert rig.clients[client].call(ask_udp, address, 7, b"udp") == b"udp"


def test_addresses_are_those_of_the_documentation(rig: Rig) -> None:
    assert [host.ipv4 for host in (*rig.clients, *rig.servers)] == [
        "10.1.0.2",
        "10.1.1.2",
        "10.2.0.2",
        "10.2.1.2",
    ]
    assert [host.ipv6 for host in (*rig.clients, *rig.servers)] == [
        "fd01::2",
        "fd01:0:0:1::2",
        "fd02::2",
        "fd02:0:0:1::2",
    ]
    addresses = rig.middle.run(["ip", "-brief", "address", "show", "inside0"]).stdout
    assert f"{LISTEN4}/24" in addresses
    assert f"{LISTEN6}/64" in addresses


def test_without_forwarding_nothing_passes() -> None:
    with Rig() as rig:
        start_echo(rig.server)
        with pytest.raises(TimeoutError):
            rig.client.call(ask_udp, rig.server.ipv4, 7, b"udp", timeout=0.05)


def test_added_addresses_can_be_used_at_once(rig: Rig) -> None:
    rig.client.add_address("eth0", "10.1.0.66/24", "fd01::66/64")
    assert rig.client.call(ask_udp, rig.server.ipv4, 7, b"v4", source="10.1.0.66") == b"v4"
    assert rig.client.call(ask_udp, rig.server.ipv6, 7, b"v6", source="fd01::66") == b"v6"


def test_far_ends_are_made_to_suit_xdp_and_back(rig: Rig) -> None:
    for suited in (True, False):
        rig.suit_xdp(suited)
        for host in (*rig.clients, *rig.servers):
            assert host.call(is_on, "eth0", Offload.GRO) is suited
            assert host.call(is_on, "eth0", Offload.CHECKSUM) is not suited
        assert rig.client.call(ask_tcp, rig.server.ipv4, 7, b"tcp") == b"tcp"


def test_a_socket_of_a_host_is_usable_from_outside_it(rig: Rig) -> None:
    with rig.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((rig.server.ipv4, 7))
        assert sock.getsockname()[0] == rig.client.ipv4


def test_two_rigs_do_not_see_each_other(rig: Rig) -> None:
    with Rig() as other:
        assert other.name != rig.name
        other.forward()
        # There, a server of the same address has nothing that listens.
        with pytest.raises(ConnectionRefusedError):
            other.client.call(ask_udp, rig.server.ipv4, 7, b"hello?")


def test_failures_name_the_command_and_what_it_said(rig: Rig) -> None:
    with pytest.raises(RigError, match="ls /nowhere failed with 2") as caught:
        rig.client.run(["ls", "/nowhere"])
    assert "No such file" in caught.value.hint
    with pytest.raises(RigError, match=r"sleep 60 took longer than 0\.05 s"):
        rig.client.run(["sleep", "60"], timeout=0.05)


def test_closing_takes_everything_away_and_may_be_repeated() -> None:
    rig = Rig()
    sleeper = rig.client.popen(["sleep", "60"])
    with subprocess.Popen(rig.server.enter(["sleep", "60"])) as stray:
        namespace = Path(f"/proc/{stray.pid}/ns/net")
        wait_for(lambda: namespace.samefile(rig.server.path), "the stray to be in its namespace")
        rig.close()
        rig.close()
        assert not sleeper.running
        assert stray.wait(PATIENCE) == -9
    assert not list(NETNS.glob(f"{rig.name}*"))
    assert not rig.files.exists()


def test_what_a_called_function_raises_is_raised_to_the_caller(rig: Rig) -> None:
    with pytest.raises(ZeroDivisionError):
        rig.client.call(divmod, 1, 0)
