"""TC programs below kernel 6.6: a direct-action filter at the ingress of a clsact queueing discipline.

Such a filter is no bpf_link. It stays until somebody removes it, names no owner, and is found by its place:
ours is handle 1 at priority 1. What gets pinned is its program, so that the next start knows its filter by
the program's id. One program may be on several interfaces, so the pin is a directory: `PIN/IFINDEX`. A new
program is pinned there as `IFINDEX_next` before it is attached, and takes over the name afterwards: killed in
between, one of the two names still fits the filter.

The discipline itself is left behind, since nobody can tell who else has filters in it.
"""

import ctypes as ct
import errno
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
        if other and not (pin and other in _pinned_programs(pin, ifindex)):
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
        """What an earlier run pinned, whether or not it is still attached."""
        ifindex = next((int(path.name.partition("_")[0]) for path in pin.iterdir()), 0)
        ours = _pinned_programs(pin, ifindex)
        attached = _attached_program(ifindex)
        return cls(ifindex, attached if attached in ours else next(iter(ours), 0), pin)

    def info(self) -> LinkInfo:
        """See `Link`."""
        attached = self._is_there()
        return LinkInfo(LinkKind.CLSACT, self.ifindex if attached else 0, self.program_id, attached)

    def update(self, program: Program) -> None:
        """See `Link`."""
        if self.pin:
            current, following = _names(self.pin, self.ifindex)
            following.unlink(missing_ok=True)
            pins.pin(program.fd, following)
        options = _place(prog_fd=program.fd, flags=_REPLACE)
        if (code := -library().bpf_tc_attach(_hook(self.ifindex), ct.byref(options))) != 0:
            raise refusal(code, f"attach {program.name} to {interface_label(self.ifindex)} by a tc filter")
        self.program_id = program.id
        if self.pin:
            following.rename(current)

    def detach(self) -> None:
        """See `Link`. A filter that somebody else has put in the place of ours is left alone."""
        if self._is_there():
            code = -library().bpf_tc_detach(_hook(self.ifindex), ct.byref(_place()))
            if code not in (0, *_NO_FILTER):
                raise refusal(code, f"remove the tc filter of {interface_label(self.ifindex)}")
        if self.pin and self.pin.exists():
            for path in self.pin.iterdir():
                path.unlink()
            self.pin.rmdir()

    def close(self) -> None:
        """See `Link`."""

    def _is_there(self) -> bool:
        return self.ifindex > 0 and _attached_program(self.ifindex) == self.program_id


def _names(pin: Path, ifindex: int) -> tuple[Path, Path]:
    """Where the program of an interface is pinned, and where its successor is until it is attached."""
    return pin / f"{ifindex}", pin / f"{ifindex}_next"


def _pinned_programs(pin: Path, ifindex: int) -> list[int]:
    """Ids of the one or two programs that the filter of an interface may hold, if it is ours."""
    ids = []
    for path in _names(pin, ifindex):
        if path.exists():
            with open_pinned_program(path) as program:
                ids.append(program.id)
    return ids


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
