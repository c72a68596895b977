"""firstpacket: frames that no honest reader finds fault with."""

from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.firstpacket import checksum, first_packet
from marchproxy.model.protocol import Transport
from tests.bpf.packets import Icmp, Tcp, Udp
from tests.bpf.reading import read

HARDWARE = bytes.fromhex("020000010001")


@pytest.mark.parametrize(
    ("source", "destination"), [("10.1.0.2", "10.1.0.1"), ("fd01::2", "fd02::1"), ("1.2.3.4", "255.255.0.1")]
)
@pytest.mark.parametrize("transport", [Transport.TCP, Transport.UDP, None])
def test_frames_are_whole(source: str, destination: str, transport: Transport | None) -> None:
    ends = ip_address(source), ip_address(destination)
    frame, raw_key = first_packet(*ends, 50_000, 443, transport, HARDWARE)
    reading = read(frame)
    assert reading.problems == []
    assert reading.link.destination == HARDWARE
    packet = reading.packet
    assert packet is not None
    assert (packet.source, packet.destination) == ends
    key = layouts.read_key(raw_key)
    assert (layouts.read_address(key.source), layouts.read_address(key.destination)) == ends
    assert layouts.read_port(key.source_port) == 50_000
    if transport is None:
        assert isinstance(packet.transport, Icmp)
        assert key.protocol in (layouts.ICMP, layouts.ICMPV6)
        assert layouts.read_port(key.destination_port) == 0
        return
    assert isinstance(packet.transport, Tcp if transport is Transport.TCP else Udp)
    assert (packet.transport.source, packet.transport.destination) == (50_000, 443)
    assert key.protocol == transport.number
    assert layouts.read_port(key.destination_port) == 443
    if isinstance(packet.transport, Tcp):
        assert packet.transport.flags == "S"


def test_checksum_of_the_rfc() -> None:
    """The example of RFC 1071 section 3."""
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2
    assert checksum(b"\x01") == checksum(b"\x01\x00")
