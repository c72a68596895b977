"""Listening sockets that outlive the daemon: the service manager holds them while it is restarted.

Clients that come in between wait in the socket's queue instead of being refused. systemd passes what it holds
as descriptors from 3 on (sd_listen_fds(3), sd_pid_notify_with_fds(3)); a supervisor that sets `LISTEN_FDS`
in the same way does as well.
"""

import logging
import os
import socket
from collections.abc import MutableMapping
from functools import partial

from marchproxy.dataplane.notify import Notifier
from marchproxy.dataplane.proxy.sockets import know_own
from marchproxy.model.address import IPAddress
from marchproxy.model.protocol import Transport

log = logging.getLogger(__name__)

_FIRST = 3
"""SD_LISTEN_FDS_START."""


class DescriptorStore:
    """Sockets by name: those that an earlier daemon left, and those that the next one is to have."""

    def __init__(self, notifier: Notifier, inherited: dict[str, socket.socket], room: int = 0) -> None:
        """`room`: how many the manager says it can hold; 0: it does not say."""
        self._notifier = notifier
        self._inherited = inherited
        self._room = room
        self._kept: set[str] = set(inherited)
        self._proven = frozenset(inherited)
        for sock in inherited.values():
            know_own(sock)

    @classmethod
    def adopt(
        cls, notifier: Notifier, environment: MutableMapping[str, str] = os.environ
    ) -> "DescriptorStore":
        """Take over what the manager passes. The variables are taken out, so that no child takes it too."""
        room = environment.get("FDSTORE", "")
        made = partial(cls, notifier, room=int(room) if room.isdigit() else 0)
        listed = {name: environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
        if listed["LISTEN_PID"] != str(os.getpid()) or not listed["LISTEN_FDS"].isdigit():
            return made({})
        names = listed["LISTEN_FDNAMES"].split(":")
        inherited: dict[str, socket.socket] = {}
        for offset in range(int(listed["LISTEN_FDS"])):
            sock = _socket_at(_FIRST + offset)
            name = names[offset] if offset < len(names) else ""
            if sock is None:
                continue
            if name in inherited:
                sock.close()
            else:
                inherited[name] = sock
        return made(inherited)

    def take(self, name: str) -> socket.socket | None:
        """The inherited socket of that name, for whoever asks first."""
        return self._inherited.pop(name, None)

    def give_back(self, name: str, sock: socket.socket) -> None:
        """What `take` gave was of no use yet: whoever asks next gets it."""
        self._inherited[name] = sock

    def keep(self, name: str, sock: socket.socket) -> None:
        """Have the next daemon inherit it. What is kept already is not sent again."""
        if name not in self._kept:
            self._kept.add(name)
            self._notifier.keep(name, sock.fileno())

    def holds(self, name: str) -> bool:
        """Whether the next daemon is going to inherit it.

        Managers do not tell what they refuse: known is what came from there, and what there is room for
        ($FDSTORE, from systemd 254 on).
        """
        return name in self._kept and (name in self._proven or len(self._kept) <= self._room)

    def release(self, name: str) -> None:
        """Nobody is to inherit it any more."""
        if name in self._kept:
            self._kept.remove(name)
            self._proven -= {name}
            self._notifier.release(name)

    def close(self) -> None:
        """Let go of inherited sockets that nobody took: their listeners are gone from the policy.

        Until then clients wait in them, so a plan has to be in force.
        """
        for name, sock in self._inherited.items():
            log.info("listener %s is no longer wanted", name)
            sock.close()
            self.release(name)
        self._inherited.clear()


def store_name(transport: Transport, address: IPAddress, port: int) -> str:
    """A listener's name in the store, where colons separate names."""
    return f"{transport}-{str(address).replace(':', '_')}-{port}"


def _socket_at(descriptor: int) -> socket.socket | None:
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        log.warning("descriptor %d from the service manager: %s", descriptor, error.strerror)
        return None
    sock.setblocking(False)
    return sock
