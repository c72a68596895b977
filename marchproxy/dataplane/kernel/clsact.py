"""TC programs below kernel 6.6: a direct-action filter at the ingress of a clsact queueing discipline.

Such a filter is no bpf_link. It stays until somebody removes it, names no owner, and is found by its place:
ours is handle 1 at priority 1. What gets pinned is the program, so that the next start knows its filter by
the program's id. A new program is pinned beside the old one before it is attached and takes over its name
afterwards: killed in between, one of the two names still fits the filter.

The discipline itself is left behind, since nobody can tell who else has filters in it.
"""

import ctypes as ct
import errno
import socket
from pathlib import Path
from typing import Self

from marchproxy.dataplane.kernel import pins
from marchproxy.dataplane.kernel.attachment import LinkInfo, LinkKind
from marchproxy.dataplane.kernel.errors import AttachConflict, interface_label, refusal
from marchproxy.dataplane.kernel.libbpf import TcHook, TcOptions, library
from marchproxy.dataplane.kernel.programs import Program, open_pinned_program

_INGRESS = 1
_REPLACE = 1
_HANDLE = _PRIORITY = 1
_NO_FILTER = (errno.ENOENT, errno.EINVAL, errno.ENODEV)
"""Answers to a query: no such filter, no clsact discipline, no such interface."""


class ClsactFilter:
    """A program in our filter. Closing it changes nothing; even without a pin it stays attached."""

    __slots__ = ("ifindex", "pin", "program_id")

    def __init__(self, ifindex: int, program_id: int, pin: Path | None) -> None:
        self.ifindex = ifindex
        self.program_id = program_id
        self.pin = pin

    @classmethod
    def attach(cls, program: Program, ifindex: int, pin: Path | None) -> Self:
        """Add our filter. AttachConflict where its place is taken, and the errors of `attach_tc`."""
        other = _attached_program(ifindex)
        if other and not (pin and other in _pinned_programs(pin)):
            raise AttachConflict(
                f"{interface_label(ifindex)} has a tc filter at priority 1 already, with program {other}",
                hint="see `tc filter show dev NAME ingress`; remove it if it is not needed",
            )
        _create_discipline(ifindex)
        added = cls(ifindex, 0, pin)
        added.update(program)
        return added

    @classmethod
    def open(cls, pin: Path) -> Self:
        """What an earlier run pinned; its interface is looked for among those of this network namespace."""
        ours = _pinned_programs(pin)
        for ifindex, _ in socket.if_nameindex():
            if (attached := _attached_program(ifindex)) in ours:
                return cls(ifindex, attached, pin)
        return cls(0, ours[0], pin)

    def info(self) -> LinkInfo:
        """See `Link`."""
        attached = self._is_there()
        return LinkInfo(LinkKind.CLSACT, self.ifindex if attached else 0, self.program_id, attached)

    def update(self, program: Program) -> None:
        """See `Link`."""
        if self.pin:
            beside = _beside(self.pin)
            beside.unlink(missing_ok=True)
            pins.pin(program.fd, beside)
        options = _place(prog_fd=program.fd, flags=_REPLACE)
        if (code := -library().bpf_tc_attach(_hook(self.ifindex), ct.byref(options))) != 0:
            raise refusal(code, f"attach {program.name} to {interface_label(self.ifindex)} by a tc filter")
        self.program_id = program.id
        if self.pin:
            _beside(self.pin).rename(self.pin)

    def detach(self) -> None:
        """See `Link`. A filter that somebody else has put in the place of ours is left alone."""
        if self._is_there():
            code = -library().bpf_tc_detach(_hook(self.ifindex), ct.byref(_place()))
            if code not in (0, *_NO_FILTER):
                raise refusal(code, f"remove the tc filter of {interface_label(self.ifindex)}")
        if self.pin:
            self.pin.unlink(missing_ok=True)
            _beside(self.pin).unlink(missing_ok=True)

    def close(self) -> None:
        """See `Link`."""

    def _is_there(self) -> bool:
        return self.ifindex > 0 and _attached_program(self.ifindex) == self.program_id


def _pinned_programs(pin: Path) -> list[int]:
    """Ids of the programs pinned at `pin` and beside it."""
    ids = []
    for path in (pin, _beside(pin)):
        if path.exists():
            with open_pinned_program(path) as program:
                ids.append(program.id)
    return ids


def _beside(pin: Path) -> Path:
    return pin.with_name(f"{pin.name}_next")


def _attached_program(ifindex: int) -> int:
    """The id of the program at our filter's place on an interface, whoever put it there; 0 for none."""
    options = _place()
    code = -library().bpf_tc_query(_hook(ifindex), ct.byref(options))
    if code not in (0, *_NO_FILTER):
        raise refusal(code, f"read the tc filters of {interface_label(ifindex)}")
    return int(options.prog_id) if code == 0 else 0


def _create_discipline(ifindex: int) -> None:
    code = -library().bpf_tc_hook_create(_hook(ifindex))
    if code not in (0, errno.EEXIST):
        raise refusal(code, f"add a clsact queueing discipline to {interface_label(ifindex)}")


def _hook(ifindex: int) -> "ct._Pointer[TcHook]":
    return ct.pointer(TcHook(ifindex=ifindex, attach_point=_INGRESS))


def _place(**fields: int) -> TcOptions:
    return TcOptions(handle=_HANDLE, priority=_PRIORITY, **fields)
