"""The daemon's folder in /run: the lock that makes it the only one, and the control socket."""

import fcntl
import os
import socket
from pathlib import Path

from marchproxy.model.errors import Conflict, InvalidValue, MarchproxyError, NotPermitted

DEFAULT_RUNTIME_DIR = Path("/run/marchproxy")
SOCKET_NAME = "control.sock"
LOCK_NAME = "daemon.lock"
_LONGEST_PATH = 107
"""Bytes of sun_path without its NUL, unix(7)."""


class RuntimeDir:
    """Holds the lock from construction to `close`. The kernel drops it however the process dies."""

    def __init__(self, path: Path) -> None:
        """Make the folder (0750) if it is missing, and lock it. Raises `Conflict` if a daemon has it."""
        self.control_socket = path / SOCKET_NAME
        if len(os.fsencode(self.control_socket) + b".new") > _LONGEST_PATH:
            raise InvalidValue(
                "runtime directory", str(path), "a path of at most 90 bytes: a socket lives in it"
            )
        try:
            _make(path)
            self._lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise _refused(path, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._lock, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(self._lock)
            hint = "stop it first, or give this one another MARCHPROXY_RUNTIME_DIR"
            raise Conflict(f"{path}: a daemon runs here already, process {holder}", hint=hint) from error
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"{os.getpid()}\n".encode())

    def open_socket(self) -> socket.socket:
        """Bind the control socket (0660). A stale one is replaced: whoever holds the lock is alone.

        It gets its mode under another name first, so that nobody can connect before it has it.
        """
        beside = self.control_socket.with_name(f"{SOCKET_NAME}.new")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            beside.unlink(missing_ok=True)
            listening.bind(str(beside))
            beside.chmod(0o660)
            listening.listen(128)
            beside.rename(self.control_socket)
        except OSError as error:
            listening.close()
            raise _refused(self.control_socket, error) from error
        listening.setblocking(False)
        return listening

    def close(self) -> None:
        """Take the socket away and give up the lock."""
        self.control_socket.unlink(missing_ok=True)
        os.close(self._lock)


def _make(path: Path) -> None:
    if path.is_dir():
        return
    path.mkdir(parents=True)
    # mkdir's own mode is cut by the umask.
    path.chmod(0o750)


def _refused(path: Path, error: OSError) -> MarchproxyError:
    if isinstance(error, PermissionError):
        hint = "run as root, or name a folder of your own in MARCHPROXY_RUNTIME_DIR"
        return NotPermitted(f"{path}: {error.strerror}", hint=hint)
    return MarchproxyError(f"{path}: {error.strerror}", hint="MARCHPROXY_RUNTIME_DIR names another folder")
