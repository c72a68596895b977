"""What no test-run can show: frames as drivers hand them over, tags taken off and checksums left to them."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, Final

import pytest

from marchproxy.dataplane.kernel.links import attach_tc
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.kernel.tcpsocket import enter_repair
from marchproxy.model.reason import Reason
from rig import Host
from tests.bpf.bed import Bed
from tests.bpf.packets import Packet, Tcp, Udp
from tests.bpf.policies import OPEN
from tests.bpf.reading import describe
from tests.bpf.talk import NAT_PORT, from_client
from tests.policy.build import plan

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs", "tcx")

_ALL: Final = 3
"""ETH_P_ALL."""
_SOL_PACKET, _AUXILIARY, _VLAN_VALID = 263, 8, 1 << 4
_PATIENCE = 20.0

QUESTION = from_client(Udp(40000, 80, b"question"))
THROUGH = QUESTION.but(destination=QUESTION.destination + 0x10001)
SENTINEL = from_client(Udp(40001, 80, b"sentinel"))


@pytest.fixture
def live(bed: Bed) -> Iterator[Bed]:
    """The bed with its TC program on both interfaces."""
    bed.apply(plan(*OPEN))
    bed.settings.prepare(NatPorts(NAT_PORT, 1000))
    links = [attach_tc(bed.programs["tc"], ifindex) for ifindex in bed.ifindex.values()]
    yield bed
    for link in links:
        link.close()


class Wire:
    """A packet socket on a host's link."""

    def __init__(self, host: Host) -> None:
        self._socket = host.call(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        self._socket.bind(("eth0", 0))
        self._socket.setsockopt(_SOL_PACKET, _AUXILIARY, 1)
        self._socket.settimeout(_PATIENCE)

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def received_until(self, wanted: bytes) -> list[bytes]:
        """Frames that came in, up to the one that ends with `wanted`; those with a tag as `tagged`."""
        found: list[bytes] = []
        while not (found and found[-1].endswith(wanted)):
            frame, auxiliary, _, address = self._socket.recvmsg(65536, 256)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            status = struct.unpack_from("=I", auxiliary[0][2])[0]
            found.append(b"tagged " + frame if status & _VLAN_VALID else frame)
        return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def wires(live: Bed) -> Iterator[tuple[Wire, Wire]]:
    """The client's and the server's."""
    with ExitStack() as stack:
        yield (
            stack.enter_context(closing(Wire(live.rig.client))),
            stack.enter_context(closing(Wire(live.rig.server))),
        )


def arrivals(live: Bed, wires: tuple[Wire, Wire], packet: Packet) -> tuple[dict[Reason, int], list[bytes]]:
    """Send a packet, then a sentinel; what was counted, and what of the packet reached the server."""
    client, server = wires
    live.counters.difference()
    client.send(packet.build())
    client.send(SENTINEL.build())
    frames = [frame for frame in server.received_until(b"sentinel") if b"question" in frame]
    counted = {reason: packets for reason, (packets, _) in live.counters.difference().items()}
    return counted, frames


@pytest.mark.parametrize("tags", [(), (0,), (0x6000,), (0, 0)], ids=["none", "0", "0, urgent", "0 and 0"])
def test_priority_tagged_frame_is_as_good_as_untagged(
    live: Bed, wires: tuple[Wire, Wire], tags: tuple[int, ...]
) -> None:
    _, frames = arrivals(live, wires, QUESTION.but(link__tags=tags))
    (frame,) = frames
    assert not frame.startswith(b"tagged")
    assert "10.2.0.1 > 10.2.0.2 ttl=63" in describe(frame)


@pytest.mark.parametrize("tags", [(), (0,), (0, 0), (0, 0, 0)], ids=lambda tags: f"{len(tags)} tags")
def test_priority_tags_are_no_way_around_the_policy(
    live: Bed, wires: tuple[Wire, Wire], tags: tuple[int, ...]
) -> None:
    counted, frames = arrivals(live, wires, THROUGH.but(link__tags=tags))
    assert frames == []
    assert counted[Reason.MALFORMED if len(tags) > 2 else Reason.NO_MAPPING] == 1


@pytest.mark.parametrize("tags", [(5,), (0, 5), (5, 0)], ids=["5", "0 and 5", "5 and 0"])
def test_other_vlans_are_not_ours(live: Bed, wires: tuple[Wire, Wire], tags: tuple[int, ...]) -> None:
    for packet in (QUESTION, THROUGH):
        counted, frames = arrivals(live, wires, packet.but(link__tags=tags))
        assert frames == []
        assert counted.keys() == {Reason.PASSED_TO_HOST, Reason.FORWARDED}


FAMILIES = pytest.mark.parametrize(
    ("family", "own", "backend"),
    [(socket.AF_INET, "10.1.0.1", "10.2.0.2"), (socket.AF_INET6, "fd01::1", "fd02::2")],
    ids=["v4", "v6"],
)


@FAMILIES
def test_reset_reaches_a_local_client(
    live: Bed, family: socket.AddressFamily, own: str, backend: str
) -> None:
    """Whose checksums are left to the device, which here means: to nobody."""
    with closing(live.rig.client.socket(family, socket.SOCK_STREAM)) as client:
        client.settimeout(_PATIENCE)
        with pytest.raises(ConnectionRefusedError):
            client.connect((backend, 9))


@FAMILIES
def test_path_mtu_is_discovered_through_the_appliance(
    live: Bed, family: socket.AddressFamily, own: str, backend: str
) -> None:
    """A client with segmentation and checksum offload sends what its own link takes and the next does not.

    That one grows narrow only once the connection stands, or the handshake would have told the client.
    """
    payload = bytes(range(256)) * 800
    received = bytearray()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(_PATIENCE)
            while data := connection.recv(65536):
                received.extend(data)

    try:
        with closing(live.rig.server.socket(family, socket.SOCK_STREAM)) as listener:
            listener.settimeout(_PATIENCE)
            listener.bind((backend, 8080))
            listener.listen()
            server = threading.Thread(target=serve, args=(listener,))
            server.start()
            live.counters.difference()
            with closing(live.rig.client.socket(family, socket.SOCK_STREAM)) as client:
                client.settimeout(_PATIENCE)
                client.connect((own, 80))
                live.host.ip("link set outside0 mtu 1400")
                live.settings.routes_changed()
                client.sendall(payload)
            server.join(2 * _PATIENCE)
    finally:
        live.host.ip("link set outside0 mtu 1500")
    assert received == payload
    assert Reason.TOO_BIG in live.counters.difference()


def moved(host: Host, address: str, port: int, peer: tuple[str, int]) -> socket.socket:
    """A connection of a host at an address that it has no longer."""
    there = f"address add {address} dev lo", f"address delete {address} dev lo"
    own = host.call(socket.socket, socket.AF_INET6 if ":" in address else socket.AF_INET)
    host.ip(there[0])
    enter_repair(own)
    own.bind((address, port))
    own.connect(peer)
    host.ip(there[1])
    return own


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        (4, {}),
        (4, {"more": True}),
        (4, {"options": bytes([1, 1, 1, 0])}),
        (6, {}),
        (6, {"extensions": ((44, bytes(6)),)}),
        (6, {"extensions": ((60, bytes([1, 4, 0, 0, 0, 0])),)}),
    ],
    ids=["v4", "v4 fragment", "v4 options", "v6", "v6 atomic fragment", "v6 options"],
)
def test_what_is_for_a_socket_at_an_address_of_others_goes_nowhere(
    live: Bed, wires: tuple[Wire, Wire], version: int, fields: dict[str, Any]
) -> None:
    """The kernel would send it on, unless it finds the socket before it looks at routes."""
    source, address = ("10.1.0.2", "10.2.0.2") if version == 4 else ("fd01::2", "fd02::2")
    packet = from_client(Tcp(40000, 81, "A", payload=b"question"), source, address, **fields)
    with moved(live.host, address, 81, (source, 40000)):
        _, frames = arrivals(live, wires, packet)
    assert frames == []
