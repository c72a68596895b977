"""Source ports for upstream sockets that may be handed off: those that flows have, too."""

import errno
import itertools
import os
import random
import socket
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.dataplane.kernel.sourceaddress import source_towards
from marchproxy.dataplane.lately import lately
from marchproxy.model.address import IPAddress

TRIES = 64
IN_A_ROW = 8
"""Of these; then each is somewhere else, and the turn goes on there: others hold thousands in a row."""
_IN_USE = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)


class _Way(NamedTuple):
    """Between us and a backend: our address towards it, and its own."""

    own: str
    there: str
    packed: tuple[bytes, bytes]
    """Its own and ours, as keys of flows have them."""


class UpstreamPorts:
    """Opens upstream sockets from ports of the range that flows use.

    When a tunnel is handed off its sockets are closed, and only its flow holds the tuple: the kernel would
    give an ephemeral port to the next socket that asks. The programs claim ports for their flows beside
    sockets and flows (`flow_claim_port`), and this does, too. Ports are taken in turn: a backend that still
    holds the last connection of a port would have to compare timestamps. For one network namespace.
    """

    def __init__(self, maps: Mapping[str, Map], ports: NatPorts = NatPorts()) -> None:  # noqa: B008  (frozen)
        self._flows, self._opening = maps["flows"], maps["opening"]
        self._ports = ports
        self._way = lately(_way_towards)
        self._turn = self._somewhere()

    def open(self, address: IPAddress, port: int) -> socket.socket:
        """A socket that has begun to connect, without blocking: wait until it is writable.

        OSError of `connect`: ENETUNREACH without a route, EADDRNOTAVAIL where no port was free.
        """
        way = self._way(address)
        if way is None:
            raise OSError(errno.ENETUNREACH, f"there is no route to {address}")
        for number in range(TRIES):
            if number >= IN_A_ROW:
                self._turn = self._somewhere()
            source = self._ports.first + next(self._turn) % self._ports.count
            key = layouts.FLOW_KEY.struct.pack(
                *way.packed, layouts.pack_port(port), layouts.pack_port(source), layouts.TCP
            )
            # Before the server hears of it: a SYN within another conversation would be answered there.
            if self._is_taken(key):
                continue
            opened = _connect((way.own, source), (way.there, port))
            # A flow may have claimed it since. From now on the socket holds it against others, which look for
            # one once they are in `opening`.
            if opened and not self._is_taken(key):
                return opened
            if opened:
                opened.close()
        raise OSError(errno.EADDRNOTAVAIL, f"{TRIES} ports of {self._ports} towards {address} are in use")

    def _is_taken(self, key: bytes) -> bool:
        """Flows go from `opening` to `flows`: whoever looks the other way round may miss one."""
        return self._opening.has(key) or self._flows.has(key)

    def _somewhere(self) -> Iterator[int]:
        return itertools.count(random.randrange(self._ports.count))  # noqa: S311  (it is no secret)


def _way_towards(address: IPAddress) -> _Way | None:
    own = source_towards(address)
    if own is None:
        return None
    return _Way(str(own), str(address), (layouts.pack_address(address), layouts.pack_address(own)))


def _connect(source: tuple[str, int], target: tuple[str, int]) -> socket.socket | None:
    """None where another socket has the port, or the whole tuple."""
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # One port serves connections to many backends.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(source)
        # An exception for what is always so (EINPROGRESS) would take longer than the rest of this.
        code = sock.connect_ex(target)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
    except OSError as error:
        sock.close()
        if error.errno in _IN_USE:
            return None
        raise
    return sock
