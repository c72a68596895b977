"""Datagrams to and from who has no connection yet, or none any more."""

import os
from typing import NamedTuple

from aioquic._buffer import Buffer
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import (
    QuicFrameType,
    QuicHeader,
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.packet_builder import QuicPacketBuilder

from marchproxy.dataplane.quic.steering import CONNECTION_ID, RESET_TOKEN

VERSIONS = (int(QuicProtocolVersion.VERSION_1), int(QuicProtocolVersion.VERSION_2))
SMALLEST = SMALLEST_MAX_DATAGRAM_SIZE
"""Bytes of a datagram that may begin a connection (RFC 9000 section 14.1): what we answer is not larger, so
nobody gains by sending it in another's name."""
_MOST_ID = 255
_LEAST_RESET = 21
"""Bytes below which a reset would not look like a packet (RFC 9000 section 10.3)."""
_MOST_RESET = 42


class Head(NamedTuple):
    """What holds for every version (RFC 8999)."""

    version: int | None
    """None: a short header."""
    destination: bytes
    """A connection ID of ours, or one that a client has made up."""
    source: bytes = b""


def read_head(data: bytes) -> Head | None:
    """The head of a datagram's first packet; None: it is none."""
    if not data:
        return None
    if not data[0] & 0x80:
        found = data[1 : 1 + CONNECTION_ID]
        return Head(None, found) if data[0] & 0x40 and len(found) == CONNECTION_ID else None
    size = data[5] if len(data) > 5 else _MOST_ID
    end = 6 + size
    if len(data) <= end:
        return None
    rest = data[end + 1 :]
    if len(rest) < data[end]:
        return None
    return Head(int.from_bytes(data[1:5]), data[6:end], rest[: data[end]])


def read_initial(data: bytes) -> QuicHeader | None:
    """The header of a datagram that may begin a connection of a version that we speak; None: it may not."""
    try:
        header = pull_quic_header(Buffer(data=data), host_cid_length=CONNECTION_ID)
    except ValueError:
        return None
    fits = header.packet_type is QuicPacketType.INITIAL and len(data) >= SMALLEST
    # RFC 9000 section 7.2: what a client makes up has 8 bytes at least.
    return header if fits and len(header.destination_cid) >= 8 else None


def other_versions(head: Head) -> bytes:
    """The answer to a version that we do not speak (RFC 9000 section 6)."""
    return encode_quic_version_negotiation(head.destination, head.source, list(VERSIONS))


def refusal(header: QuicHeader, code: int, reason: str = "") -> bytes:
    """The answer to an Initial packet that ends it, without a connection (RFC 9000 section 10.2.3)."""
    if header.version is None:
        raise ValueError("no Initial packet")
    crypto = CryptoPair()
    crypto.setup_initial(cid=header.destination_cid, is_client=False, version=header.version)
    builder = QuicPacketBuilder(
        host_cid=header.destination_cid,
        is_client=False,
        max_datagram_size=SMALLEST,
        peer_cid=header.source_cid,
        version=header.version,
    )
    builder.start_packet(QuicPacketType.INITIAL, crypto)
    said = reason.encode()
    buffer = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE, capacity=32 + len(said))
    buffer.push_uint_var(code)
    buffer.push_uint_var(QuicFrameType.PADDING)
    buffer.push_uint_var(len(said))
    buffer.push_bytes(said)
    datagrams, _ = builder.flush()
    return datagrams[0]


def reset(token: bytes, size: int) -> bytes | None:
    """The answer to a packet of `size` bytes for a connection that nobody knows; None: there is none.

    It is smaller than what it answers, or two that know nothing would go on for ever.
    """
    length = min(size - 1, _MOST_RESET)
    if length < _LEAST_RESET:
        return None
    noise = os.urandom(length - RESET_TOKEN)
    return bytes([noise[0] & 0x3F | 0x40]) + noise[1:] + token
