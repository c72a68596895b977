"""Names that no other process uses, and the removal of everything that carries them.

A rig goes away three ways: its `with` block ends; the process exits or is told to (atexit; SIGTERM and SIGHUP
become `SystemExit`); or the process was killed outright, and the next rig to start sweeps up after it.
"""

import atexit
import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Protocol

PREFIX = "mprig-"
NETNS = Path("/run/netns")
BPFFS = Path("/sys/fs/bpf")

_OURS = re.compile(rf"{PREFIX}(?P<pid>\d+)-")
_number = itertools.count()


class Closable(Protocol):
    """Whatever is to be closed before the process ends; `close` may be called twice."""

    def close(self) -> None:
        """Take it away."""


_alive: "weakref.WeakSet[Closable]" = weakref.WeakSet()


def unique_name() -> str:
    """A name that tells whose it is: prefix, process id, number."""
    return f"{PREFIX}{os.getpid()}-{next(_number)}"


def close_at_exit(item: Closable) -> None:
    """Close `item` when the process ends in any way that lets it act."""
    if not _alive:
        atexit.register(_close_all)
        _turn_signals_into_exit()
    _alive.add(item)


def _close_all() -> None:
    for item in list(_alive):
        item.close()


def _turn_signals_into_exit() -> None:
    """Only where nobody else handles them, and only from the main thread, which alone may."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def sweep() -> list[str]:
    """Remove what rigs of dead processes left (programs, namespaces, pins, files); returns what it was."""
    removed = []
    for path in _leftovers():
        if path.parent == NETNS:
            remove_namespace(path.name)
        else:
            remove_tree(path)
        removed.append(str(path))
    return removed


def _leftovers() -> Iterator[Path]:
    for folder in (NETNS, BPFFS, Path(tempfile.gettempdir())):
        for path in folder.glob(f"{PREFIX}*"):
            owner = _OURS.match(path.name)
            if owner and not Path("/proc", owner["pid"]).exists():
                yield path


def remove_namespace(name: str) -> None:
    """End what still runs in a namespace of ours, then the namespace. One that is gone already is fine."""
    pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout
    for pid in pids.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def remove_tree(path: Path) -> None:
    """Remove a directory that may be gone already. On bpffs, unlinking takes a pin out of the kernel."""
    shutil.rmtree(path, ignore_errors=True)
