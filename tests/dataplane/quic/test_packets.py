"""Datagrams to and from who has no connection."""

from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.dataplane.quic import packets


def initial() -> bytes:
    """What a client begins with."""
    client = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"]))
    client.connect(("127.0.0.1", 1), 0.0)
    return client.datagrams_to_send(0.0)[0][0]


@given(st.binary(max_size=1300))
def test_no_datagram_is_too_strange(data: bytes) -> None:
    packets.read_head(data)
    packets.read_initial(data)


def test_heads() -> None:
    data = initial()
    head = packets.read_head(data)
    assert head is not None
    assert (head.version, len(head.destination), len(head.source)) == (1, 8, 8)
    assert packets.read_head(b"\x40" + b"12345678" + b"rest") == packets.Head(None, b"12345678")
    assert packets.read_head(b"\x40short") is None
    # The fixed bit is missing.
    assert packets.read_head(b"\x00" + bytes(20)) is None
    assert packets.read_head(b"\xc0\0\0\0\1\xff" + bytes(30)) is None


def test_what_may_begin_a_connection() -> None:
    data = initial()
    assert packets.read_initial(data) is not None
    assert packets.read_initial(data[:1199]) is None
    handshake = bytes([data[0] & 0xCF | 0x20]) + data[1:]
    assert packets.read_initial(handshake) is None
    # A made-up ID of 4 bytes.
    short = data[:5] + b"\x04" + data[6:10] + data[14:] + bytes(8)
    assert packets.read_initial(short) is None


def test_other_versions_are_offered_to_who_asked() -> None:
    head = packets.Head(0x1A2A3A4A, b"destinat", b"source")
    found = pull_quic_header(Buffer(data=packets.other_versions(head)))
    assert found.packet_type is QuicPacketType.VERSION_NEGOTIATION
    assert (found.destination_cid, found.source_cid) == (b"source", b"destinat")
    assert tuple(found.supported_versions) == packets.VERSIONS


def test_a_reset_is_smaller_than_what_it_answers() -> None:
    token = bytes(range(16))
    for size in range(100):
        made = packets.reset(token, size)
        if made is None:
            assert size <= 21
        else:
            assert len(made) < size
            assert made.endswith(token)
            assert made[0] & 0xC0 == 0x40


def test_a_refusal_ends_the_client() -> None:
    client = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"]))
    client.connect(("127.0.0.1", 1), 0.0)
    header = packets.read_initial(client.datagrams_to_send(0.0)[0][0])
    assert header is not None
    said = packets.refusal(header, 2, "no room")
    assert len(said) < packets.SMALLEST
    client.receive_datagram(said, ("127.0.0.1", 1), 0.1)
    client.handle_timer(100.0)
    event = client.next_event()
    assert isinstance(event, ConnectionTerminated)
    assert (event.error_code, event.reason_phrase) == (2, "no room")
