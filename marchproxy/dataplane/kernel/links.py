"""Programs on interfaces: attached, kept by a pin, swapped without losing a packet, taken off again.

XDP (as a bpf_link since kernel 5.9) and tcx (kernel 6.6) are links: the kernel object that ties a program to
an interface, alive while a pin or a file descriptor refers to it. Below kernel 6.6 TC programs go into a
filter of the `clsact` module.

An interface index means nothing outside its network namespace: all of this is to be called inside of it.
"""

import ctypes as ct
import errno
import os
import socket
from pathlib import Path

from marchproxy.dataplane.kernel import features, pins
from marchproxy.dataplane.kernel.attachment import BpfLink, Link, LinkInfo, LinkKind
from marchproxy.dataplane.kernel.clsact import ClsactFilter
from marchproxy.dataplane.kernel.errors import (
    AttachConflict,
    KernelError,
    NotSupported,
    interface_label,
    refusal,
)
from marchproxy.dataplane.kernel.libbpf import TCX_INGRESS, XDP, LinkCreateOptions, library
from marchproxy.dataplane.kernel.programs import Program

__all__ = ["Link", "LinkInfo", "LinkKind", "attach_tc", "attach_xdp", "link_info", "open_link"]

_HOOKS = {
    # kind: (attach type, XDP_FLAGS_ mode)
    LinkKind.XDP: (XDP, 1 << 2),
    LinkKind.XDP_GENERIC: (XDP, 1 << 1),
    LinkKind.TCX: (TCX_INGRESS, 0),
}


def attach_xdp(program: Program, ifindex: int, *, generic: bool, pin: Path | None = None) -> Link:
    """Attach an XDP program, in the driver or generically.

    Where `pin` holds a link of the same kind on the same interface, that link gets the new program and goes
    on. Any other link there (its interface is gone, has another index, or the mode differs) is taken off and
    replaced. NotSupported where the driver cannot, AttachConflict where somebody else's program is in the
    way, InterfaceMissing, PinFailed, or NotPermitted.
    """
    kind = LinkKind.XDP_GENERIC if generic else LinkKind.XDP
    return _adopt(program, ifindex, kind, pin) or _create(program, ifindex, kind, pin)


def attach_tc(program: Program, ifindex: int, *, pin: Path | None = None, force_clsact: bool = False) -> Link:
    """Attach a TC program to incoming packets: by tcx, or by a clsact filter where the kernel has no tcx.

    Pins are treated as by `attach_xdp`, and so are errors. `force_clsact` does without tcx on any kernel.
    """
    if force_clsact or features.tcx().supported is False:
        return _adopt(program, ifindex, LinkKind.CLSACT, pin) or ClsactFilter.attach(program, ifindex, pin)
    return _adopt(program, ifindex, LinkKind.TCX, pin) or _create(program, ifindex, LinkKind.TCX, pin)


def open_link(pin: Path) -> Link:
    """What an earlier run left at `pin`, to look at or to detach. PinMissing or PinFailed."""
    if pin.is_dir():
        return ClsactFilter.open(pin)
    return BpfLink(pins.open_pin_of(pin, pins.PinKind.LINK), pin)


def link_info(pin: Path) -> LinkInfo:
    """What is attached by `pin`. PinMissing or PinFailed."""
    link = open_link(pin)
    try:
        return link.info()
    finally:
        link.close()


def _adopt(program: Program, ifindex: int, kind: LinkKind, pin: Path | None) -> Link | None:
    """The pinned link with its new program; None, and nothing pinned any more, where it does not fit."""
    if pin is None or not pin.exists():
        return None
    link = open_link(pin)
    try:
        found = link.info()
        if found.attached and (found.kind, found.ifindex) == (kind, ifindex):
            link.update(program)
            return link
        link.detach()
    except BaseException:
        link.close()
        raise
    return None


def _create(program: Program, ifindex: int, kind: LinkKind, pin: Path | None) -> Link:
    attach_type, mode = _HOOKS[kind]
    options = LinkCreateOptions(flags=mode)
    fd = library().bpf_link_create(program.fd, ifindex, attach_type, ct.byref(options))
    if fd < 0:
        raise _attach_refusal(-fd, program, ifindex, kind)
    link = BpfLink(fd, pin)
    try:
        if pin:
            pins.pin(fd, pin)
    except BaseException:
        link.close()
        raise
    return link


def _attach_refusal(code: int, program: Program, ifindex: int, kind: LinkKind) -> KernelError:
    where = interface_label(ifindex)
    if code == errno.EINVAL and not _exists(ifindex):
        code = errno.ENODEV  # as tcx says it; XDP answers EINVAL
    if code in (errno.EBUSY, errno.EEXIST):
        return AttachConflict(
            f"{where} carries another XDP program already",
            hint="see `bpftool net`; take it off if it is not needed",
            errno=code,
        )
    # The driver's own explanation (MTU, number of queues, offloads) does not reach the caller of bpf().
    if kind is LinkKind.XDP and code in (errno.EOPNOTSUPP, errno.EINVAL, errno.ERANGE):
        return NotSupported(
            f"the driver of {where} does not take a native XDP program: {os.strerror(code)}",
            hint="use the mode tc or xdp-generic; with some drivers a smaller MTU helps",
            errno=code,
        )
    return refusal(code, f"attach {program.name} to {where} by {kind}")


def _exists(ifindex: int) -> bool:
    return any(index == ifindex for index, _ in socket.if_nameindex())
