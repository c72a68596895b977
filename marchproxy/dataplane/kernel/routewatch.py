"""Notices that routes, addresses, links or neighbours changed, without asking what exactly.

A netlink socket of its own rather than pyroute2: a message's type is all that is read, and the daemon stays small.
"""

import errno
import socket
import struct
from dataclasses import dataclass

_HEADER = struct.Struct("=IHHII")
_GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE (linux/rtnetlink.h)."""
_NEIGHBOUR_MESSAGES = frozenset({28, 29})
_BUFFER = 65536


@dataclass(frozen=True, slots=True)
class Changes:
    """What was heard since the last time."""

    routes: bool = False
    """Routes, addresses or links."""
    neighbours: bool = False

    def __bool__(self) -> bool:
        return self.routes or self.neighbours


class RouteWatch:
    """Listens in the network namespace it was made in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._socket.bind((0, _GROUPS))

    def heard(self) -> Changes:
        """Everything heard since the last call, without waiting."""
        routes = neighbours = False
        while True:
            try:
                data = self._socket.recv(_BUFFER)
            except BlockingIOError:
                return Changes(routes, neighbours)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # The kernel dropped messages: assume the worst and go on reading.
                routes = neighbours = True
                continue
            for kind in _kinds(data):
                if kind in _NEIGHBOUR_MESSAGES:
                    neighbours = True
                else:
                    routes = True

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _kinds(data: bytes) -> list[int]:
    kinds, offset = [], 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            break
        kinds.append(kind)
        offset += (length + 3) & ~3
    return kinds
