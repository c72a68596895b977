"""Taking everything out of the kernel: `marchproxy detach`."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from marchproxy.dataplane.kernel.diversion import withdraw
from marchproxy.dataplane.kernel.interfaces import detach_pin, pinned_interface
from marchproxy.dataplane.kernel.libbpf import on_bpffs
from marchproxy.dataplane.kernel.location import LOOKUP, pin_root, sysctl_record
from marchproxy.dataplane.kernel.lookup import take_out
from marchproxy.dataplane.kernel.sysctls import Sysctls
from marchproxy.model.errors import NotPermitted

_VERSION = re.compile(r"v[0-9]+")


def detach_all() -> list[str]:
    """Detach every program, unpin every map and with them all flows, restore sysctls, routes; what was done.

    Needs no daemon and no compiled object; running it twice is harmless. Raises `NotPermitted`.
    """
    try:
        return [*_unpin(pin_root()), *Sysctls(sysctl_record()).restore(), *withdraw()]
    except PermissionError as error:
        raise NotPermitted(f"cannot remove {error.filename}", hint="run: sudo marchproxy detach") from error


def _unpin(root: Path) -> Iterator[str]:
    try:
        found = sorted(root.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    # A folder that is on no BPF file system holds nothing of ours, whatever MARCHPROXY_BPFFS says.
    if not on_bpffs(root):
        return
    for version in found:
        if version.is_dir() and _VERSION.fullmatch(version.name):
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
