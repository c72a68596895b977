"""The addresses of this host's interfaces, asked of the kernel over netlink.

Without pyroute2: one question, one kind of answer, and the daemon stays small.
"""

import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from marchproxy.dataplane.kernel.errors import refusal
from marchproxy.model.address import IPAddress

_HEADER = struct.Struct("=IHHII")
_ADDRESS = struct.Struct("=BBBBI")
"""`struct ifaddrmsg`: family, prefix length, flags, scope, index."""
_ATTRIBUTE = struct.Struct("=HH")
_GETADDR, _NEWADDR, _ERROR, _DONE = 22, 20, 2, 3
_REQUEST, _DUMP = 0x1, 0x300
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_GLOBAL = 0
"""RT_SCOPE_UNIVERSE: neither link-local nor the host's own."""
_UNFIT = 0x01 | 0x08 | 0x20 | 0x40
"""IFA_F_SECONDARY (of IPv6 temporary), DADFAILED, DEPRECATED, TENTATIVE: nobody should answer to these."""
_BUFFER = 65536


@dataclass(frozen=True, slots=True)
class OwnAddresses:
    """The primary global addresses of one interface, in the kernel's order."""

    v4: Sequence[IPv4Address] = field(default=())
    v6: Sequence[IPv6Address] = field(default=())

    def of(self, version: int) -> Sequence[IPAddress]:
        """Of one IP version."""
        return self.v4 if version == 4 else self.v6


def interface_addresses() -> Mapping[int, OwnAddresses]:
    """By interface number, in the calling thread's network namespace; interfaces without are left out.

    Raises `KernelError`.
    """
    found: dict[int, list[IPAddress]] = {}
    for ifindex, address in _ask():
        found.setdefault(ifindex, []).append(address)
    return {
        ifindex: OwnAddresses(
            tuple(each for each in addresses if isinstance(each, IPv4Address)),
            tuple(each for each in addresses if isinstance(each, IPv6Address)),
        )
        for ifindex, addresses in found.items()
    }


def _ask() -> Iterator[tuple[int, IPAddress]]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
        size = _HEADER.size + _ADDRESS.size
        question = _HEADER.pack(size, _GETADDR, _REQUEST | _DUMP, 1, 0)
        asking.send(question + _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
        while True:
            for kind, body in messages(asking.recv(_BUFFER)):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    code = -int(struct.unpack_from("=i", body)[0])
                    raise refusal(code, "ask for the addresses of interfaces")
                if kind == _NEWADDR and (answer := read_address(body)):
                    yield answer


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The netlink messages in a datagram: kind and body."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def read_address(body: bytes) -> tuple[int, IPAddress] | None:
    """Interface number and address of an RTM_NEWADDR; None where it is not one to be known by."""
    if len(body) < _ADDRESS.size:
        return None
    family, _, flags, scope, ifindex = _ADDRESS.unpack_from(body)
    attributes = dict(_attributes(body[_ADDRESS.size :]))
    if (wide := attributes.get(_IFA_FLAGS)) and len(wide) == 4:
        flags = int(struct.unpack("=I", wide)[0])
    raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b"")
    if scope != _GLOBAL or flags & _UNFIT:
        return None
    if family == socket.AF_INET and len(raw) == 4:
        return ifindex, IPv4Address(raw)
    if family == socket.AF_INET6 and len(raw) == 16:
        return ifindex, IPv6Address(raw)
    return None


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
