"""Connections in transit that come to a socket of ours, so that the name in their TLS can be read.

`bpf/divert.h` gives their packets to the socket. Here are the sockets themselves, and the rule and routes by
which the kernel takes marked packets for its own, whatever their destination.
"""

import errno
import socket

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.errors import KernelError, refusal
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.settings import Settings

TABLE = 0x4D50
"""The routing table in which every address is this host's, and the priority of the rule that leads there."""
_BACKLOG = 4096
_IPV6_TRANSPARENT = 75
"""Linux's number, which Python's socket module leaves out."""
_LOOPBACK_INDEX = 1
"""In every network namespace."""
_HOST_SCOPE = 254
_THERE = frozenset({errno.EEXIST})
_AWAY = frozenset({errno.ENOENT, errno.ESRCH, errno.EAFNOSUPPORT, errno.EOPNOTSUPP})
"""What the kernel answers who adds what is there, takes away what is not; without the family the last two."""
_EVERYWHERE: dict[socket.AddressFamily, tuple[str, str]] = {
    socket.AF_INET: ("127.0.0.1", "0.0.0.0/0"),
    socket.AF_INET6: ("::1", "::/0"),
}
"""By family: where its socket is bound, and the destination of its route."""


class Diversion:
    """Off until it is wanted; then on while the daemon runs: connections may still be on their way."""

    def __init__(self, sockets: Map, settings: Settings) -> None:
        self._map = sockets
        self._settings = settings
        self.listening: tuple[socket.socket, ...] = ()
        """Where diverted connections are accepted, one for each family that the host has. What is accepted is
        bound to the address that its client asked for. They are at loopback: nobody else reaches them."""
        self.problems: tuple[str, ...] = ()
        """Why diverted connections hang."""

    def begin(self) -> None:
        """Take diverted connections from now on. Raises `KernelError`."""
        if self.listening:
            return
        opened: list[socket.socket] = []
        try:
            for index, (family, (address, everywhere)) in enumerate(_EVERYWHERE.items()):
                sock = _listen(family, address)
                if sock is None:
                    continue
                opened.append(sock)
                _change("add", _THERE, family, everywhere)
                self._map.set(layouts.U32.pack(index), layouts.U64.pack(sock.fileno()))
        except (OSError, KernelError) as error:
            for sock in opened:
                sock.close()
            if isinstance(error, KernelError):
                raise
            raise refusal(error.errno or 0, "divert connections to a socket") from error
        self.listening = tuple(opened)
        self._settings.change(diverting=1)

    def look_after(self) -> None:
        """Put rule and routes back where somebody took them away: network managers remove those of others."""
        try:
            for sock in self.listening:
                _change("add", _THERE, sock.family, _EVERYWHERE[sock.family][1])
        except OSError as error:
            self.problems = (f"diverted connections hang: routing rule {TABLE}: {error.strerror}",)
        else:
            self.problems = ()

    def close(self) -> None:
        """Close the sockets, which takes them out of the map: new connections are refused."""
        for sock in self.listening:
            sock.close()
        self.listening = ()


def withdraw() -> list[str]:
    """Take rule and routes away; what was done. Harmless where they are not there. Raises `KernelError`."""
    try:
        return [
            f"routing rule {TABLE} and its route ({family.name})"
            for family, (_, everywhere) in _EVERYWHERE.items()
            if _change("del", _AWAY, family, everywhere)
        ]
    except OSError as error:
        raise refusal(error.errno or 0, f"remove routing rule {TABLE}") from error


def _listen(family: socket.AddressFamily, address: str) -> socket.socket | None:
    """None where the host has no such family."""
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return None
        raise
    try:
        sock.setblocking(False)
        transparent(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((address, 0))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRNOTAVAIL:
            return None
        raise
    return sock


def transparent(sock: socket.socket) -> None:
    """Let a socket be bound to addresses of others, and accept what is for them (CAP_NET_ADMIN)."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)


def _change(verb: str, harmless: frozenset[int], family: int, everywhere: str) -> bool:
    """Add or delete route and rule of a family; whether anything was not so already. Raises `OSError`."""
    # Here alone: its import takes a fifth of a second and several megabytes.
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    scope = _HOST_SCOPE if family == socket.AF_INET else 0
    route = {"type": "local", "scope": scope, "dst": everywhere, "oif": _LOOPBACK_INDEX, "table": TABLE}
    rule = {"priority": TABLE, "table": TABLE, "fwmark": layouts.DIVERT_MARK}
    changed = False
    with IPRoute() as netlink:
        for kind, fields in ((netlink.route, route), (netlink.rule, rule)):
            try:
                kind(verb, family=family, **fields)
                changed = True
            except NetlinkError as error:
                if error.code not in harmless:
                    raise OSError(error.code, str(error)) from error
    return changed
