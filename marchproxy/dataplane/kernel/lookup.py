"""One listening socket for many addresses and ports: `bpf/lookup.bpf.c` in a network namespace (kernel 5.9).

What is pinned goes on without the daemon: a socket that somebody else holds meanwhile, such as the service
manager, goes on receiving for all of its ports.
"""

import ctypes as ct
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from marchproxy import bpf
from marchproxy.dataplane.kernel import layouts, pins
from marchproxy.dataplane.kernel.attachment import BpfLink
from marchproxy.dataplane.kernel.errors import LibbpfMissing, NotPermitted, NotSupported, refusal
from marchproxy.dataplane.kernel.interfaces import detach_pin
from marchproxy.dataplane.kernel.libbpf import SK_LOOKUP, LinkCreateOptions, LinkInfo, library, object_info
from marchproxy.dataplane.kernel.objects import BpfObject, ObjectFile
from marchproxy.dataplane.kernel.programs import Program
from marchproxy.dataplane.kernel.tables import listener_key
from marchproxy.policy.plan import Listener

_LINK = "link"
_NO_BANK = b"\0"


class Lookup:
    """For one thread at a time, in the network namespace of the sockets."""

    def __init__(self, folder: Path, objects: Path = bpf.OBJECTS) -> None:
        """`folder` is for its pins alone; nothing is loaded before it is needed, but read from `objects`."""
        self._folder = folder
        self._file = ObjectFile(objects / "lookup.bpf.o")
        self._loaded: BpfObject | None = None
        self._held: dict[bytes, int] = {}
        """Packed keys of listeners to the places of their sockets, as the kernel has them."""

    def ready(self) -> bool:
        """Load and attach, unless that is so; False where this kernel, or this user, cannot.

        Takes over what an earlier daemon has pinned. Raises `KernelError` for what somebody has to put right.
        """
        if self._loaded is None:
            try:
                self._load()
            except (LibbpfMissing, NotPermitted, NotSupported):
                return False
        return True

    def settle(self, served: Sequence[tuple[socket.socket, Sequence[Listener]]]) -> None:
        """From now on each socket receives for its listeners, and nobody for any other.

        Sockets are listening ones over TCP, of the family of their listeners. Only after `ready`, unless
        there are none: then everything is taken out of the kernel. Raises `KernelError`.
        """
        if self._loaded is None or not served:
            self.close()
            take_out(self._folder)
            return
        ports, sockets = self._loaded.maps["lookup_ports"], self._loaded.maps["lookup_sockets"]
        wanted: dict[bytes, int] = {}
        taken: set[int] = set()
        for sock, listeners in served:
            keys = [listener_key(each) + _NO_BANK for each in listeners]
            place = self._place(keys, taken)
            taken.add(place)
            sockets.set(layouts.U32.pack(place), layouts.U64.pack(sock.fileno()))
            wanted |= dict.fromkeys(keys, place)
        # First what is too much: both together may be more than the table holds.
        ports.delete_many([key for key in self._held if key not in wanted])
        ports.update_many(
            [(key, layouts.U32.pack(at)) for key, at in wanted.items() if self._held.get(key) != at]
        )
        self._held = wanted

    def close(self) -> None:
        """Let go; what is pinned goes on. May be repeated."""
        if self._loaded is not None:
            self._loaded.close()
        self._loaded, self._held = None, {}

    def _place(self, keys: Sequence[bytes], taken: set[int]) -> int:
        """Where these had their socket before, so that connections find one throughout; else a free one."""
        before = next((at for key in keys if (at := self._held.get(key)) is not None), None)
        if before is not None and before not in taken:
            return before
        used = taken.union(self._held.values())
        return next(at for at in range(len(used) + 1) if at not in used)

    def _load(self) -> None:
        loaded = BpfObject.load(self._file, pin_dir=self._folder)
        try:
            _attach(loaded.programs["marchproxy_lookup"], self._folder / _LINK).close()
            entries = loaded.maps["lookup_ports"].items()
            self._held = {key: layouts.U32.unpack(value)[0] for key, value in entries}
        except BaseException:
            loaded.close()
            raise
        self._loaded = loaded


def take_out(folder: Path) -> bool:
    """Detach what is pinned there and unpin it; whether there was anything."""
    if not folder.is_dir():
        return False
    detach_pin(folder / _LINK)
    shutil.rmtree(folder)
    return True


def _attach(program: Program, pin: Path) -> BpfLink:
    """The pinned link with this program, or a new one where none is pinned for this network namespace."""
    namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if pin.exists() and (link := _adopt(program, pin, os.fstat(namespace).st_ino)):
            return link
        fd = library().bpf_link_create(program.fd, namespace, SK_LOOKUP, ct.byref(LinkCreateOptions()))
    finally:
        os.close(namespace)
    if fd < 0:
        raise refusal(-fd, f"attach {program.name} to the network namespace")
    link = BpfLink(fd, pin)
    try:
        pins.pin(fd, pin)
    except BaseException:
        link.close()
        raise
    return link


def _adopt(program: Program, pin: Path, inode: int) -> BpfLink | None:
    link = BpfLink(pins.open_pin_of(pin, pins.PinKind.LINK), pin)
    found = LinkInfo()
    if (code := object_info(link.fd, found)) < 0:
        link.close()
        raise refusal(-code, f"read what is pinned at {pin}")
    if found.ifindex == inode:
        link.update(program)
        return link
    link.close()
    detach_pin(pin)
    return None
