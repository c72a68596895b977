"""Which listeners share a socket: those on many ports in a row, where the kernel can be told of them."""

import socket
from collections.abc import Iterable, Sequence
from typing import Protocol

from marchproxy.policy.plan import Listener

LEAST = 16
"""Ports. For fewer, a socket each costs less than a look-up more for every new connection of the host."""


class Sharing(Protocol):
    """Gives sockets the connections of more listeners than they are bound to: `kernel.lookup.Lookup`."""

    def ready(self) -> bool:
        """Whether it can. Raises `MarchproxyError` where somebody has to put something right first."""

    def settle(self, served: Sequence[tuple[socket.socket, Sequence[Listener]]]) -> None:
        """Each socket receives for these from now on, nobody for others. Raises `MarchproxyError`."""

    def close(self) -> None:
        """Let go of it; whoever holds the sockets goes on receiving."""


def runs(listeners: Iterable[Listener]) -> list[tuple[Listener, ...]]:
    """Those over TCP at one address on at least `LEAST` consecutive ports, in order of the ports."""
    found: list[list[Listener]] = []
    for item in sorted(listeners, key=lambda item: item.key):
        last = found[-1][-1] if found else None
        if last is not None and item.key == last.key._replace(port=last.port + 1):
            found[-1].append(item)
        else:
            found.append([item])
    return [tuple(run) for run in found if len(run) >= LEAST]
