"""Which local address a datagram came to, and sending its answer from there (ip(7), RFC 3542)."""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

from marchproxy.model.address import IPAddress

_PKTINFO4 = struct.Struct("=i4s4s")
"""struct in_pktinfo, ip(7): interface, the local address, the header's destination."""
_PKTINFO6 = struct.Struct("=16si")
"""struct in6_pktinfo (RFC 3542): address, interface."""
ANCILLARY = socket.CMSG_SPACE(_PKTINFO6.size)
"""Bytes to receive it in."""

type Ancillary = list[tuple[int, int, bytes]]


def destination(ancillary: Ancillary) -> IPAddress:
    """The local address a datagram came to. Raises `LookupError` where the kernel does not say."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == socket.IP_PKTINFO:
            return IPv4Address(_PKTINFO4.unpack_from(data)[1])
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return IPv6Address(_PKTINFO6.unpack_from(data)[0])
    raise LookupError("no IP_PKTINFO")


def source(local: IPAddress) -> Ancillary:
    """What makes the kernel send from `local`, by whatever interface its routes say."""
    if isinstance(local, IPv4Address):
        return [(socket.IPPROTO_IP, socket.IP_PKTINFO, _PKTINFO4.pack(0, local.packed, b"\0" * 4))]
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(local.packed, 0))]
