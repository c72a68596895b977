"""What the kernel says of a network device, by the old ioctls: they answer for the process's own network
namespace, where sysfs shows the one that it was mounted in.
"""

import ctypes as ct
import fcntl
import socket
import struct
from dataclasses import dataclass

_SIOCGIFFLAGS, _SIOCGIFMTU, _SIOCETHTOOL = 0x8913, 0x8921, 0x8946
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_GET_DRIVER, _GET_FLAGS, _LRO = 0x3, 0x25, 1 << 15
"""ETHTOOL_GDRVINFO, ETHTOOL_GFLAGS and ETH_FLAG_LRO of linux/ethtool.h."""
_DRIVER_INFO = 196
"""Bytes of struct ethtool_drvinfo; the driver's name is 32 of them, behind the command."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device at one moment."""

    up: bool
    """An administrator wants it."""
    running: bool
    """It can carry: there is a link."""
    mtu: int
    driver: str
    """Such as `veth` or `ixgbe`; empty where it does not say."""
    lro: bool
    """It merges what it receives."""


def look(name: str) -> Device | None:
    """The device of that name; None: there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            (flags,) = struct.unpack_from("=H", _ask(sock, _SIOCGIFFLAGS, name), 16)
            (mtu,) = struct.unpack_from("=i", _ask(sock, _SIOCGIFMTU, name), 16)
        except OSError:
            return None
        driver = (
            _ask_ethtool(sock, name, _GET_DRIVER, _DRIVER_INFO)[4:36].split(b"\0")[0].decode(errors="replace")
        )
        (features,) = struct.unpack_from("=I", _ask_ethtool(sock, name, _GET_FLAGS, 8), 4)
    return Device(bool(flags & _IFF_UP), bool(flags & _IFF_RUNNING), mtu, driver, bool(features & _LRO))


def _ask(sock: socket.socket, request: int, name: str, data: int = 0) -> bytes:
    """struct ifreq: 16 bytes of name, 24 of what is asked for. Raises `OSError`."""
    return fcntl.ioctl(sock, request, struct.pack("=16sQ16x", name.encode()[:15], data))


def _ask_ethtool(sock: socket.socket, name: str, command: int, size: int) -> bytes:
    """What the driver answers; zeros where it does not."""
    buffer = ct.create_string_buffer(size)
    struct.pack_into("=I", buffer, 0, command)
    try:
        _ask(sock, _SIOCETHTOOL, name, ct.addressof(buffer))
    except OSError:
        return bytes(size)
    return buffer.raw
