"""The service manager's side channel: sd_notify(3) without libsystemd."""

import logging
import os
import socket
import time
from array import array
from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)


class Notifier:
    """Tells systemd what the daemon is doing. Without `NOTIFY_SOCKET` every call does nothing.

    A message that cannot be sent is not worth stopping for: the manager notices silence by its own timeouts.
    """

    def __init__(self, address: str | None = None, *, watchdog: float | None = None) -> None:
        self._watchdog = watchdog
        """Seconds within which the manager wants to hear `alive`; None: it does not watch."""
        self._alive_at = 0.0
        # A leading '@' stands for the NUL byte of Linux's abstract socket names.
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        if self._socket:
            self._socket.setblocking(False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Notifier":
        """As systemd asks for it: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, and `WATCHDOG_PID` if that is us."""
        microseconds = environment.get("WATCHDOG_USEC", "")
        for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watched = for_us and microseconds.isdigit() and int(microseconds) > 0
        return cls(
            environment.get("NOTIFY_SOCKET") or None, watchdog=int(microseconds) / 1e6 if watched else None
        )

    def ready(self, status: str) -> None:
        """Start-up, or a reload, is done."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. `Type=notify-reload` compares the time with its request's."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def stopping(self) -> None:
        """The daemon is on its way out."""
        self._send("STOPPING=1", "STATUS=draining")

    def alive(self) -> None:
        """Answer the watchdog, three times as often as it asks; calls in between do nothing."""
        now = time.monotonic()
        if self._watchdog is not None and now - self._alive_at >= self._watchdog / 3:
            self._alive_at = now
            self._send("WATCHDOG=1")

    def keep(self, name: str, descriptor: int) -> None:
        """Have the manager hold a descriptor for whoever is started next (`FileDescriptorStoreMax=`).

        Without FDPOLL=0 it would let go of a socket whose peer has gone.
        """
        self._send("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", descriptors=(descriptor,))

    def release(self, name: str) -> None:
        """Have it let go of what it holds by that name."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket:
            self._socket.close()

    def _send(self, *lines: str, descriptors: Sequence[int] = ()) -> None:
        if self._socket is None or self._address is None:
            return
        message = "\n".join(line.replace("\n", " ") for line in lines).encode()
        # Not socket.send_fds, which takes an address and ignores it (Python 3.13).
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))
        try:
            self._socket.sendmsg([message], [rights] if descriptors else [], 0, self._address)
        except OSError as error:
            log.debug("sd_notify: %s", error)
