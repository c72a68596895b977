"""By which way the kernel would send to an address, and an interface's own link address."""

import errno
import fcntl
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address

from marchproxy.model.address import IPAddress

_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_RTM_GETROUTE, _NLM_F_REQUEST, _NLMSG_ERROR = 26, 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_RTN_UNICAST = 1
_SIOCGIFHWADDR = 0x8927
_REQUEST = struct.Struct("16sH14s8x")
_ARPHRD_ETHER = 1
_NOWHERE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})


@dataclass(frozen=True, slots=True)
class Way:
    """What the routing table says about a destination."""

    interface: str
    gateway: IPAddress | None = None
    """None: the destination is on the link, or behind a gateway of another address family."""


def way_to(destination: IPAddress) -> str | None:
    """The interface that the routing table names; None: there is no route, or it is an own address."""
    way = route_to(destination)
    return way.interface if way else None


def route_to(destination: IPAddress) -> Way | None:
    """The interface and the gateway that it names; None as in `way_to`.

    Asked by netlink (rtnetlink(7)) in the network namespace of the calling thread.
    """
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    packed = destination.packed
    body = _ROUTE.pack(family, 8 * len(packed), 0, 0, 0, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), _RTA_DST) + packed
    head = _HEADER.pack(_HEADER.size + len(body), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asker:
        asker.settimeout(1)
        asker.sendto(head + body, (0, 0))
        answer = asker.recv(65536)
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind == _NLMSG_ERROR:
        code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        if code in _NOWHERE:
            return None
        raise OSError(code, f"cannot look up the route to {destination}")
    found = _ROUTE.unpack_from(answer, _HEADER.size)
    attributes = _attributes(answer, _HEADER.size + _ROUTE.size)
    if found[7] != _RTN_UNICAST or _RTA_OIF not in attributes:
        return None
    (index,) = struct.unpack("=I", attributes[_RTA_OIF])
    gateway = attributes.get(_RTA_GATEWAY)
    return Way(socket.if_indextoname(index), ip_address(gateway) if gateway else None)


def hardware_address(interface: str) -> bytes:
    """Six bytes; zeros where it has none. Raises `OSError` where there is no such interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        request = _REQUEST.pack(interface.encode(), 0, b"")
        _, kind, address = _REQUEST.unpack(fcntl.ioctl(asker, _SIOCGIFHWADDR, request))
    found: bytes = address[:6]
    return found if kind == _ARPHRD_ETHER else bytes(6)


def _attributes(answer: bytes, offset: int) -> dict[int, bytes]:
    found = {}
    while offset + _ATTRIBUTE.size <= len(answer):
        length, kind = _ATTRIBUTE.unpack_from(answer, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = answer[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found
