"""Sockets as this tier needs them: listeners, upstream connections, and ways to end them."""

import errno
import resource
import socket
import struct
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from weakref import WeakSet

from marchproxy.model.address import IPAddress
from marchproxy.model.errors import Conflict, MarchproxyError, NotPermitted
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import WILDCARDS, Listener

BACKLOG = 4096
"""Connections that wait to be accepted; net.core.somaxconn may lower it."""
_UNPRIVILEGED = 1024
"""The first port that everybody may listen on, unless the machine says otherwise."""

_KINDS = {Transport.TCP: socket.SOCK_STREAM, Transport.UDP: socket.SOCK_DGRAM}
_IP_FREEBIND = 15
"""Linux's number, which Python's socket module leaves out; IPv6 sockets take it at the same level."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

OVERLOADED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""The process or the kernel is out of something that others will give back."""
PASSING = frozenset(
    {
        *(errno.ECONNABORTED, errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT, errno.EHOSTDOWN, errno.ENONET),
        *(errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.EPERM),
    }
)
"""accept(2) reports an error of the new connection itself, or a firewall's refusal: go on with the next.
After any other error it is not called again for a while, because the same call would fail at once."""


_ours: defaultdict[int, WeakSet[socket.socket]] = defaultdict(WeakSet)
"""By port: sockets that this daemon or an earlier one has opened, as long as somebody has them."""
_shared_for_good: WeakSet[socket.socket] = WeakSet()
"""Those of groups."""


def open_listener(listener: Listener, *, device: str = "") -> socket.socket:
    """A socket that receives for `listener`. Raises `MarchproxyError`.

    With a `device` it receives only what comes in there, whatever address that was sent to.

    Our own sockets on the same port would be in the way: those of single addresses where `listener` is their
    wildcard, or the other way round; the listener's own, where a new plan gives it to another part of the
    daemon. Linux lets them coexist only if all have SO_REUSEPORT. It is set for this moment alone, because
    with it any later process of this user takes a share unnoticed.
    """
    sock = _open(listener, device, listening=True)
    know_own(sock)
    return sock


def open_group(listener: Listener, count: int) -> list[socket.socket]:
    """`count` sockets that share an address and port for good, in this order. Raises `MarchproxyError`.

    What comes is for one of them, whoever has it open; `steer` says for which. A later process of this user
    may join, and then gets nothing of it. Nor may a socket of ours be there already: the kernel numbers
    sockets that share a port, and gives the last one's number to another when an earlier one closes.
    """
    wanted = sockaddr(listener.address, listener.port)
    if any(each.getsockname()[:2] == wanted for each in _on_port(listener)):
        hint = "apply it in two steps: first take away what listens there over udp"
        raise Conflict(f"listener {listener}: a mapping of ours has this address and port", hint=hint)
    group: list[socket.socket] = []
    try:
        while len(group) < count:
            sock = _open(listener, "", listening=True)
            group.append(sock)
            _shared_for_good.add(sock)
            _share([sock], True)
            know_own(sock)
    except BaseException:
        for sock in group:
            sock.close()
        raise
    return group


def waiting(sock: socket.socket) -> int:
    """Connections that wait to be accepted at a listening socket.

    Linux tells it where it counts unacknowledged segments of others: `tcpi_unacked` of <linux/tcp.h>.
    """
    return int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)[24:28], sys.byteorder)


def know_own(sock: socket.socket) -> None:
    """It is in nobody's way from now on, as if `open_listener` had opened it. For inherited ones."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        _ours[sock.getsockname()[1]].add(sock)


def expect_free(listener: Listener) -> None:
    """Raises as `open_listener` would for want of the address and port; opens nothing."""
    _open(listener, "", listening=False).close()


def expect_descriptors(listeners: int) -> None:
    """Raises `MarchproxyError` where so many sockets would be too many beside those of connections."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
    if listeners > most:
        message = f"{listeners} listeners want a socket each, where this process has {most} for listeners"
        hint = "listen on fewer ports, or let it open more files: they may be a quarter (ulimit -n)"
        raise MarchproxyError(message, hint=hint)


def _open(listener: Listener, device: str, *, listening: bool) -> socket.socket:
    beside = _on_port(listener)
    sock = socket.socket(family_of(listener.address), _KINDS[listener.transport])
    try:
        _share([*beside, sock], bool(beside))
        if device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        _receive(sock, listener)
        if listening and listener.transport is Transport.TCP:
            sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _refused(listener, error) from error
    finally:
        _share([each for each in beside if each not in _shared_for_good], False)
    _share([sock], False)
    return sock


def connected_socket(address: IPAddress, transport: Transport) -> socket.socket:
    """A non-blocking socket for a backend, not yet connected. Raises `OSError`."""
    sock = socket.socket(family_of(address), _KINDS[transport])
    sock.setblocking(False)
    if transport is Transport.TCP:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def reset(sock: socket.socket) -> None:
    """Close with RST (SO_LINGER 0), whatever is queued: the peer learns at once that it is over."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()


def family_of(address: IPAddress) -> socket.AddressFamily:
    """AF_INET or AF_INET6."""
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def sockaddr(address: IPAddress, port: int) -> tuple[str, int]:
    """As Python's socket calls take it."""
    return str(address), port


@lru_cache(4096)
def address_of(text: str) -> IPAddress:
    """The address in a sockaddr; the zone of a link-local one is left out. Clients come again and again."""
    return ip_address(text.partition("%")[0])


def refusal_reason(error: OSError) -> Reason:
    """Why a backend could not be reached, from what connect or send said."""
    if isinstance(error, TimeoutError):
        return Reason.UPSTREAM_TIMEOUT
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN):
        return Reason.NO_ROUTE
    if error.errno == errno.EADDRNOTAVAIL:
        return Reason.NO_NAT_PORT
    if error.errno in OVERLOADED:
        return Reason.FLOW_TABLE_FULL
    if error.errno == errno.EMSGSIZE:
        return Reason.TOO_BIG
    return Reason.UPSTREAM_REFUSED


def _receive(sock: socket.socket, listener: Listener) -> None:
    sock.setblocking(False)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    # An address that is not on this host yet is bound nevertheless: at boot, addresses come up after
    # services.
    sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    if listener.transport is Transport.TCP:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by what is accepted.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    elif listener.address in WILDCARDS.values():
        # Which of the host's addresses a datagram came to: the answer has to come from there.
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_PKTINFO, 1)
    sock.bind(sockaddr(listener.address, listener.port))


def _on_port(listener: Listener) -> Sequence[socket.socket]:
    kind, family = _KINDS[listener.transport], family_of(listener.address)
    return [
        sock
        for sock in _ours[listener.port]
        if sock.fileno() >= 0 and (sock.type, sock.family) == (kind, family)
    ]


def _share(sockets: Iterable[socket.socket], on: bool) -> None:
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, on)


def _refused(listener: Listener, error: OSError) -> MarchproxyError:
    if error.errno == errno.EADDRINUSE:
        listing = "ss --listening --tcp" if listener.transport is Transport.TCP else "ss --listening --udp"
        hint = f"{listing} --processes 'sport = :{listener.port}' shows whose it is"
        return Conflict(f"listener {listener}: another program has this address and port", hint=hint)
    if error.errno in (errno.EACCES, errno.EPERM):
        # In the message, for status and the log show no hints.
        need = ": ports below 1024 need CAP_NET_BIND_SERVICE" if listener.port < _UNPRIVILEGED else ""
        return NotPermitted(f"listener {listener}: this user may not open it{need}")
    return MarchproxyError(f"listener {listener}: {error.strerror}")
