"""Notices that routes, addresses, links, their settings or neighbours changed, without asking what exactly.

A netlink socket of its own rather than pyroute2: a message's type is all that is read, and the daemon stays
small.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = struct.Struct("=IHHII")
_LINK, _NEIGHBOUR = 1 << 0, 1 << 2
_IPV4 = 1 << 4 | 1 << 6 | 1 << 7
_IPV6 = 1 << 8 | 1 << 10 | 1 << 18
_NEXTHOP = 1 << 31
_SETTINGS = 1 << 23 | 1 << 24
_GROUPS = _LINK | _NEIGHBOUR | _IPV4 | _IPV6 | _NEXTHOP | _SETTINGS
"""Bit n - 1 is `RTNLGRP_…` n (linux/rtnetlink.h); of each family addresses, routes and rules, and NETCONF, by
which the kernel tells of forwarding that somebody switched (3.8)."""
_NEIGHBOUR_MESSAGES = frozenset({28, 29})
"""RTM_NEWNEIGH and RTM_DELNEIGH."""
_BUFFER = 65536
_READS = 256
"""Datagrams that one call reads: a routing daemon that loads a full table must not keep us for ever."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What was heard since the last time."""

    routes: bool = False
    """Routes, rules, addresses, links, or whether they forward."""
    neighbours: bool = False

    def __bool__(self) -> bool:
        return self.routes or self.neighbours


class RouteWatch:
    """Listens in the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, _GROUPS))

    def heard(self) -> Changes:
        """What was heard since the last call, without waiting."""
        routes = neighbours = False
        for data in self._datagrams():
            kinds = set(message_types(data))
            neighbours = neighbours or data == b"" or not kinds.isdisjoint(_NEIGHBOUR_MESSAGES)
            routes = routes or data == b"" or not kinds <= _NEIGHBOUR_MESSAGES
        return Changes(routes, neighbours)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def _datagrams(self) -> Iterator[bytes]:
        """What waits; nothing (`b""`) in the place of what the kernel had to drop."""
        for _ in range(_READS):
            try:
                yield self._socket.recv(_BUFFER)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield b""


def message_types(data: bytes) -> Iterator[int]:
    """The types of the netlink messages in a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind
        offset += (length + 3) & ~3
