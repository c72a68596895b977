"""How much waits in the queues of sockets whose connections may be handed to the kernel.

Apart from `handoff`, which workers need nothing of: only the daemon hands off.
"""

import socket
from contextlib import suppress

NOTSENT = 131072
"""Bytes that a relay should let wait in a send queue."""
UNREAD = 131072
"""The same of a receive queue."""
SO_BUF_LOCK = 72
"""Linux's number, which Python's socket module leaves out: which buffers have a size that was chosen."""
_TCP_NOTSENT_LOWAT = 25


def limit_backlog(*sockets: socket.socket) -> None:
    """For both sockets of a relay: let little wait in its queues, so that a handoff is possible always.

    What waits for the receiver's window stays in the other receive queue, and that is kept small: it may grow
    to megabytes otherwise, for which the receiver has no room as long as its own is young.
    """
    for sock in sockets:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOTSENT)
        if _can_unlock(sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD)


def lift_limits(*sockets: socket.socket) -> None:
    """They drain, and what waits has to go out at once; or they will never be handed off."""
    for sock in sockets:
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, 0)
            if _can_unlock(sock):
                sock.setsockopt(socket.SOL_SOCKET, SO_BUF_LOCK, 0)


def _can_unlock(sock: socket.socket) -> bool:
    """Whether a buffer of a chosen size can be left to the kernel again (kernel 5.14)."""
    try:
        sock.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK)
    except OSError:
        return False
    return True
