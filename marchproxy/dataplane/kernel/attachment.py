"""What an attached program looks like to its users, and the kernel's own way of attaching: the bpf_link."""

import ctypes as ct
import errno
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from marchproxy.dataplane.kernel.errors import PinFailed, interface_label, refusal
from marchproxy.dataplane.kernel.libbpf import TCX_INGRESS, U32, XdpQueryOptions, library, object_info
from marchproxy.dataplane.kernel.libbpf import LinkInfo as KernelLinkInfo
from marchproxy.dataplane.kernel.programs import Program

_LINK_TYPE_XDP, _LINK_TYPE_TCX = 6, 11
_MOST_PROGRAMS = 64
"""BPF_MPROG_MAX: as many programs as tcx takes on one interface."""


class LinkKind(StrEnum):
    """How a program sits on its interface."""

    XDP = "xdp"
    """In the driver, before a socket buffer exists."""
    XDP_GENERIC = "xdp-generic"
    """In the network core, for any driver, at the price of a socket buffer."""
    TCX = "tcx"
    CLSACT = "clsact"


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What the kernel says about an attachment."""

    kind: LinkKind
    ifindex: int
    """0 where the interface is gone, and for a filter that is on no interface of this namespace."""
    program_id: int
    attached: bool
    """Whether the packets of interface `ifindex` of this namespace reach the program."""


class Link(Protocol):
    """One program on one interface."""

    @property
    def pin(self) -> Path | None:
        """Where it is pinned."""

    def info(self) -> LinkInfo:
        """As the kernel sees it now."""

    def update(self, program: Program) -> None:
        """Swap the program: each packet meets either the old one or the new one."""

    def detach(self) -> None:
        """Take the program off its interface, whoever else holds the link, and unpin. May be repeated."""

    def close(self) -> None:
        """Let go. What is pinned, or in a filter, stays attached; any other link ends. May be repeated."""


class BpfLink:
    """A link of the kernel, by a file descriptor that belongs to this object."""

    __slots__ = ("fd", "pin")

    def __init__(self, fd: int, pin: Path | None = None) -> None:
        self.fd = fd
        self.pin = pin

    def info(self) -> LinkInfo:
        """See `Link`. PinFailed for a link that is neither XDP nor tcx."""
        raw = KernelLinkInfo()
        if (code := object_info(self.fd, raw)) < 0:
            raise refusal(-code, "read what a link is")
        ifindex, program = int(raw.ifindex), int(raw.prog_id)
        if raw.type == _LINK_TYPE_TCX:
            return LinkInfo(LinkKind.TCX, ifindex, program, program in _tcx_programs(ifindex))
        if raw.type != _LINK_TYPE_XDP:
            raise PinFailed(f"{self.pin} holds a link of type {raw.type}, neither XDP nor tcx")
        native, generic = _xdp_programs(ifindex)
        kind = LinkKind.XDP_GENERIC if program == generic else LinkKind.XDP
        return LinkInfo(kind, ifindex, program, program in (native, generic))

    def update(self, program: Program) -> None:
        """See `Link`."""
        if (code := library().bpf_link_update(self.fd, program.fd, None)) < 0:
            raise refusal(-code, f"swap in program {program.name}")

    def detach(self) -> None:
        """See `Link`."""
        if self.fd >= 0 and (code := library().bpf_link_detach(self.fd)) < 0:
            raise refusal(-code, "detach a link")
        self.close()
        if self.pin:
            self.pin.unlink(missing_ok=True)

    def close(self) -> None:
        """See `Link`."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _xdp_programs(ifindex: int) -> tuple[int, int]:
    """Ids of the programs on an interface, native and generic; 0 for none."""
    found = XdpQueryOptions()
    if ifindex and (code := library().bpf_xdp_query(ifindex, 0, ct.byref(found))) < 0:
        raise refusal(-code, f"read the XDP programs of {interface_label(ifindex)}")
    return int(found.drv_prog_id), int(found.skb_prog_id)


def _tcx_programs(ifindex: int) -> list[int]:
    """Ids of the programs at the ingress of an interface; none where it is gone."""
    ids, count = (U32 * _MOST_PROGRAMS)(), U32(_MOST_PROGRAMS)
    code = library().bpf_prog_query(ifindex, TCX_INGRESS, 0, None, ids, ct.byref(count))
    if code not in (0, -errno.ENODEV):
        raise refusal(-code, f"read the TC programs of {interface_label(ifindex)}")
    return list(ids[: count.value]) if code == 0 else []
