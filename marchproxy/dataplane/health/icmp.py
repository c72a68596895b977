"""Echo requests and their answers, without I/O (RFC 792, RFC 4443)."""

from struct import Struct

_HEADER = Struct("!BBHHH")
"""Type, code, checksum, identifier, sequence number."""
_REQUEST = {4: 8, 6: 128}
_REPLY = {4: 0, 6: 129}


def echo_request(version: int, identifier: int, payload: bytes) -> bytes:
    """The ICMP message. For IPv6 the kernel fills the checksum in; for a ping socket the identifier too."""
    header = _HEADER.pack(_REQUEST[version], 0, 0, identifier, 1)
    check = _checksum(header + payload) if version == 4 else 0
    return _HEADER.pack(_REQUEST[version], 0, check, identifier, 1) + payload


def is_reply(version: int, message: bytes, payload: bytes) -> bool:
    """Whether an ICMP message answers the request with that payload.

    The payload is random and long: told by it, the answer need not be told by its identifier, which the
    kernel may have replaced.
    """
    return len(message) >= 8 and message[0] == _REPLY[version] and message[1] == 0 and message[8:] == payload


def without_ip(packet: bytes) -> bytes:
    """What follows the IPv4 header, with which raw sockets deliver; empty where there is none."""
    return packet[(packet[0] & 15) * 4 :] if packet else b""


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(Struct(f"!{len(data) // 2}H").unpack(data[: len(data) & ~1]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
