"""Taking everything out of the kernel: `marchproxy detach`."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from marchproxy.bpf.places import of_others, versions
from marchproxy.dataplane.kernel.diversion import withdraw
from marchproxy.dataplane.kernel.interfaces import detach_pin, pinned_interface
from marchproxy.dataplane.kernel.libbpf import on_bpffs
from marchproxy.dataplane.kernel.location import LOOKUP, pin_root, sysctl_record
from marchproxy.dataplane.kernel.lookup import take_out
from marchproxy.dataplane.kernel.pins import lock_directory
from marchproxy.dataplane.kernel.sysctls import Sysctls
from marchproxy.model.errors import Conflict, NotPermitted


def detach_all() -> list[str]:
    """Detach every program, unpin every map and with them all flows, restore sysctls, routes; what was done.

    Needs no daemon and no compiled object; running it twice is harmless. Raises `NotPermitted`.
    """
    try:
        return [*_unpin(pin_root()), *Sysctls(sysctl_record()).restore(), *withdraw()]
    except PermissionError as error:
        raise NotPermitted(f"cannot remove {error.filename}", hint="run: sudo marchproxy detach") from error


def detach_others() -> list[str]:
    """The same of what versions with another ABI have left; only when our own programs are in their place.

    What runs at that time stays: its folder is locked. Routes and sysctls are ours by then.
    """
    done: list[str] = []
    for version in of_others(pin_root()):
        with contextlib.suppress(Conflict):
            lock = lock_directory(version)
            try:
                done += _remove(version)
            finally:
                os.close(lock)
    return done


def _unpin(root: Path) -> Iterator[str]:
    found = versions(root)
    # A folder that is on no BPF file system holds nothing of ours, whatever MARCHPROXY_BPFFS says.
    if not root.is_dir() or not on_bpffs(root):
        return
    for version in found:
        yield from _remove(version)
    # It may be the mount itself, or hold what somebody else has pinned.
    with contextlib.suppress(OSError):
        root.rmdir()


def _remove(version: Path) -> Iterator[str]:
    links = version / "links"
    for pin in sorted(links.iterdir()) if links.is_dir() else []:
        detach_pin(pin)
        yield pinned_interface(pin)
    if take_out(version / LOOKUP):
        yield "look-up of listeners that share a socket"
    pins = sum(1 for path in version.iterdir() if not path.is_dir())
    shutil.rmtree(version)
    if pins:
        yield f"{pins} maps ({version.name}), with their flows"
