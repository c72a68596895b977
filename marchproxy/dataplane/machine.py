"""The network devices of this machine, as somebody wants to know them who chooses among them."""

import fcntl
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from marchproxy.dataplane.kernel.addresses import interface_addresses
from marchproxy.dataplane.kernel.routelookup import way_to
from marchproxy.model.address import IPAddress

_SOMEWHERE: tuple[IPAddress, ...] = (IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))
"""Addresses for documentation: only a default route leads to them (RFC 5737, RFC 3849)."""
_SIOCGIFFLAGS = 0x8913
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_REQUEST = struct.Struct("16sH22x")


@dataclass(frozen=True, slots=True)
class Device:
    """One network device that is no loopback."""

    name: str
    up: bool
    addresses: tuple[IPAddress, ...]
    """Its primary global ones."""
    default: bool = False
    """Whether the default route leaves by it."""
    session: bool = False
    """Whether the way to the operator leaves by it."""


def devices(client: IPAddress | None = None) -> tuple[Device, ...]:
    """All of the calling thread's network namespace. `client` is where the operator came from.

    Raises `KernelError` where the kernel does not tell.
    """
    addresses = interface_addresses()
    outward = {_way(address) for address in _SOMEWHERE}
    back = _way(client) if client is not None else None
    found = []
    for number, name in socket.if_nameindex():
        flags = _flags(name)
        if not flags & _IFF_LOOPBACK:
            own = addresses.get(number)
            known: list[IPAddress] = [*own.v4, *own.v6] if own else []
            up = bool(flags & _IFF_UP)
            found.append(Device(name, up, tuple(known), name in outward, name == back))
    return tuple(found)


def _way(destination: IPAddress) -> str | None:
    with suppress(OSError):
        return way_to(destination)
    return None


def _flags(name: str) -> int:
    """Of netdevice(7); those of loopback where it has gone meanwhile."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        try:
            answer = fcntl.ioctl(asker, _SIOCGIFFLAGS, _REQUEST.pack(name.encode(), 0))
        except OSError:
            return _IFF_LOOPBACK
    return int(_REQUEST.unpack(answer)[1])
