"""Names on a BPF file system, which keep maps, programs and links alive while no process holds them.

A name cannot contain a dot: bpffs reserves it and answers EPERM, which would read like a missing capability.
"""

import errno
import fcntl
import os
import subprocess
from enum import StrEnum
from pathlib import Path

from marchproxy.dataplane.kernel.errors import NoBpffs, PinFailed, PinMissing, refusal
from marchproxy.dataplane.kernel.libbpf import library, on_bpffs
from marchproxy.model.errors import Conflict

STANDARD = Path("/sys/fs/bpf")
"""Where everybody expects the BPF file system."""


class PinKind(StrEnum):
    """What a pin holds, in the kernel's own words."""

    MAP = "bpf-map"
    PROGRAM = "bpf-prog"
    LINK = "bpf-link"


def make_pin_directory(directory: Path) -> None:
    """Create `directory` and its parents, for their owner only. NoBpffs where that is not on a bpffs.

    The usual place is mounted if it is not: systemd does that, small systems and containers leave it out.
    """
    try:
        if directory.is_relative_to(STANDARD) and STANDARD.is_dir() and not on_bpffs(STANDARD):
            _mount(STANDARD)
        missing = [path for path in (directory, *directory.parents) if not path.exists()]
        suitable = on_bpffs(missing[-1].parent if missing else directory)
        # One by one: with parents=True the mode is for the last one only.
        for path in reversed(missing if suitable else []):
            path.mkdir(mode=0o700, exist_ok=True)
    except OSError as problem:
        raise PinFailed(
            f"cannot create {directory}: {problem.strerror}", errno=problem.errno or 0
        ) from problem
    if not suitable:
        raise NoBpffs(
            f"{directory} is not on a BPF file system", hint="mount one: mount -t bpf bpf /sys/fs/bpf"
        )


def lock_directory(directory: Path) -> int:
    """Hold `directory` alone while the returned descriptor is open. Conflict while another process does.

    Without this, two daemons with different runtime directories would each write the same maps.
    """
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        os.close(held)
        raise Conflict(
            f"{directory}: another daemon works with what is pinned here",
            hint="stop it first, or give this one another MARCHPROXY_BPFFS",
        ) from problem
    return held


def _mount(place: Path) -> None:
    """Best effort, for it needs CAP_SYS_ADMIN; the caller looks whether it worked."""
    subprocess.run(["mount", "-t", "bpf", "bpf", str(place)], check=False, capture_output=True)


def pin(fd: int, path: Path) -> None:
    """Pin what `fd` refers to at `path`, creating its directory.

    PinFailed for a path off a bpffs or with a dot in its name; KernelError with EEXIST for a name in use.
    """
    if "." in path.name:
        raise PinFailed(f"cannot pin at {path}: a BPF file system allows no dot in a name")
    make_pin_directory(path.parent)
    if (code := library().bpf_obj_pin(fd, bytes(path))) < 0:
        raise refusal(-code, f"pin at {path}")


def open_pin(path: Path) -> tuple[int, PinKind]:
    """A new descriptor of what is pinned at `path`, and its kind. PinMissing, PinFailed or NotPermitted."""
    fd = int(library().bpf_obj_get(bytes(path)))
    if fd == -errno.ENOENT:
        raise PinMissing(f"nothing is pinned at {path}", errno=errno.ENOENT)
    if fd < 0:
        raise refusal(-fd, f"open the pin {path}")
    # The one place that tells: asked for its information, each kind answers with a struct of its own.
    name = os.readlink(f"/proc/self/fd/{fd}").removeprefix("anon_inode:").replace("_", "-")
    if name in PinKind:
        return fd, PinKind(name)
    os.close(fd)
    raise PinFailed(f"{path} holds {name!r}, which is not a map, program or link")


def open_pin_of(path: Path, kind: PinKind) -> int:
    """Like `open_pin`, for callers who know what must be there; PinFailed where it is something else."""
    fd, found = open_pin(path)
    if found is kind:
        return fd
    os.close(fd)
    raise PinFailed(f"{path} holds a {found}, not a {kind}", hint=f"remove {path}")
