"""Switches offloads of a network device, as `ethtool -K` does, which not every machine has.

Linux's <linux/ethtool.h>: SIOCETHTOOL takes an ifreq that points to { __u32 cmd; __u32 data; }.
"""

import ctypes
import fcntl
import socket
import struct
from enum import Enum

_SIOCETHTOOL = 0x8946


class Offload(Enum):
    """What can be switched: the commands that get and set it."""

    CHECKSUM = (0x16, 0x17)
    """Leaving the checksums of sent packets to the device (ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM)."""
    GRO = (0x2B, 0x2C)
    """Merging received packets (ETHTOOL_GGRO, ETHTOOL_SGRO); on veth also what lets it take XDP frames."""


def switch(interface: str, offload: Offload, on: bool) -> None:
    """Set it on an interface of the calling thread's namespace. Raises OSError."""
    _command(interface, offload.value[1], int(on))


def is_on(interface: str, offload: Offload) -> bool:
    """Whether it is on. Raises OSError."""
    return bool(_command(interface, offload.value[0], 0))


def _command(interface: str, command: int, data: int) -> int:
    value = ctypes.create_string_buffer(struct.pack("=II", command, data), 8)
    request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, request)
    return int(struct.unpack("=II", value.raw)[1])
