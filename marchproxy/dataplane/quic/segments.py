"""Datagrams on their way out: those of one size to one client in one system call (UDP_SEGMENT, Linux 4.18).

A connection sends them by the dozen, and the kernel's work for each is the larger part of what sending costs.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from marchproxy.dataplane.proxy import pktinfo
from marchproxy.dataplane.quic.connection import Datagrams, Path

_UDP_SEGMENT = 103
"""linux/udp.h."""
_MOST = 32
"""In one call; the kernel takes 64, and 65,507 bytes."""
_REFUSED = frozenset({errno.EINVAL, errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT})
"""What a network device or a kernel says that cannot do it."""

type Run = tuple[Path, int, list[bytes]]


class Segments:
    """Of one socket."""

    def __init__(self, sock: socket.socket, *, wildcard: bool) -> None:
        """`wildcard`: it has all addresses of the host, and is told which one to send from."""
        self._socket = sock
        self._wildcard = wildcard
        self._together = True

    def send(self, datagrams: Datagrams) -> None:
        """Send them. What the kernel does not take is lost, as in any full queue."""
        for path, size, run in runs(datagrams):
            try:
                self._send(path, size, run)
            except OSError as error:
                if len(run) > 1 and error.errno in _REFUSED:
                    self._together = False
                    with suppress(OSError):
                        self._send(path, size, run)

    def _send(self, path: Path, size: int, run: list[bytes]) -> None:
        ancillary = list(pktinfo.source(path.local)) if self._wildcard else []
        if len(run) > 1 and not self._together:
            for each in run:
                self._socket.sendmsg([each], ancillary, 0, path.client)
            return
        if len(run) > 1:
            ancillary.append((socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", size)))
        self._socket.sendmsg(run, ancillary, 0, path.client)


def runs(datagrams: Datagrams) -> Iterator[Run]:
    """Those that go together, in their order: to one place, of one size, but for the last."""
    path: Path | None = None
    size = 0
    run: list[bytes] = []
    for data, to in datagrams:
        joins = path == to and len(run) < _MOST and len(data) <= size and len(run[-1]) == size
        if joins:
            run.append(data)
            continue
        if path is not None:
            yield path, size, run
        path, size, run = to, len(data), [data]
    if path is not None:
        yield path, size, run
