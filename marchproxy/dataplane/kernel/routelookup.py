"""By which interface the kernel would send to an address, and the interface's own link address."""

import errno
import fcntl
import socket
import struct

from marchproxy.model.address import IPAddress

_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_RTM_GETROUTE, _NLM_F_REQUEST, _NLMSG_ERROR = 26, 1, 2
_RTA_DST, _RTA_OIF = 1, 4
_RTN_UNICAST = 1
_SIOCGIFHWADDR = 0x8927
_REQUEST = struct.Struct("16sH14s8x")
_ARPHRD_ETHER = 1
_NOWHERE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})


def way_to(destination: IPAddress) -> str | None:
    """The interface that the routing table names; None: there is no route, or it is an own address.

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
    index = _out(answer, _HEADER.size + _ROUTE.size)
    return socket.if_indextoname(index) if found[7] == _RTN_UNICAST and index else None


def hardware_address(interface: str) -> bytes:
    """Six bytes; zeros where it has none. Raises `OSError` where there is no such interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        request = _REQUEST.pack(interface.encode(), 0, b"")
        _, kind, address = _REQUEST.unpack(fcntl.ioctl(asker, _SIOCGIFHWADDR, request))
    found: bytes = address[:6]
    return found if kind == _ARPHRD_ETHER else bytes(6)


def _out(answer: bytes, offset: int) -> int:
    while offset + _ATTRIBUTE.size <= len(answer):
        length, kind = _ATTRIBUTE.unpack_from(answer, offset)
        if length < _ATTRIBUTE.size:
            break
        if kind == _RTA_OIF:
            return int(struct.unpack_from("=I", answer, offset + _ATTRIBUTE.size)[0])
        offset += (length + 3) & ~3
    return 0
