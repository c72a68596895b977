"""What can go wrong between the data plane and BPF, each failure under a name of its own.

`refusal` turns an errno into the class that callers tell apart; the other classes are raised where more is
known.
"""

import errno as codes
import os
import re
import socket
from pathlib import Path

from marchproxy.model import errors as model

ENOTSUPP = 524
"""The kernel's internal "not supported". BPF lets it through to user space; `errno` does not know it."""

_CAPABILITIES = "run as root, or grant CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
_VERIFIER_LOG = re.compile(r"-- BEGIN PROG LOAD LOG --\n(.*?)-- END PROG LOAD LOG --", re.DOTALL)
_STATISTICS = re.compile(r"processed \d+ insns|verification time|stack depth")


class KernelError(model.MarchproxyError):
    """A request that libbpf or the kernel refused.

    `errno` is 0 where no system call failed. `log` is everything libbpf and the verifier said, whole.
    """

    def __init__(self, message: str, *, hint: str = "", errno: int = 0, log: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = errno
        self.log = log


class LibbpfMissing(KernelError):
    """libbpf.so.1 is not installed, or is older than this binding needs."""


class NotPermitted(KernelError, model.NotPermitted):
    """The kernel answered EPERM: a capability is missing, or seccomp, lockdown or an LSM refused."""


class NotSupported(KernelError):
    """This kernel, driver or kind of map cannot do what was asked."""


class InterfaceMissing(KernelError):
    """No interface has this index in the caller's network namespace."""


class AttachConflict(KernelError):
    """Somebody else's program is attached where ours should be."""


class PinFailed(KernelError):
    """A path that cannot hold a pin, or holds something else than it should."""


class NoBpffs(PinFailed):
    """There is no BPF file system to pin anything in."""


class PinMissing(KernelError):
    """Nothing is pinned at this path."""


class ObjectInvalid(KernelError):
    """A file that is no BPF object, or one without the map or variable that was asked for."""


class MapFull(KernelError):
    """The map holds `max_entries` entries. `written` of the entries of this call were stored."""

    def __init__(self, name: str, max_entries: int, *, written: int, errno: int) -> None:
        super().__init__(
            f"map {name!r} is full: it holds at most {max_entries} entries",
            hint="remove entries, or load it with a larger max_entries",
            errno=errno,
        )
        self.map_name = name
        self.written = written


class MapLayoutChanged(KernelError):
    """A pinned map differs from the object's in what cannot change while it exists: type, sizes or flags."""

    def __init__(self, name: str, path: Path, differences: tuple[str, ...]) -> None:
        super().__init__(
            f"pinned map {name!r} does not fit this version: {', '.join(differences)}",
            hint=f"carry its entries over, or remove {path}",
        )
        self.map_name = name
        self.path = path
        self.differences = differences


class ProgramRejected(KernelError):
    """The verifier refused a program: a bug in the program, or a kernel too old for it."""

    def __init__(self, program: str, *, errno: int, log: str) -> None:
        super().__init__(
            f"the verifier rejected program {program!r}: {describe(errno)}\n{verifier_excerpt(log)}",
            hint="the whole verifier log is kept with this error",
            errno=errno,
            log=log,
        )
        self.program = program


_CLASSES: dict[int, tuple[type[KernelError], str]] = {
    codes.EPERM: (NotPermitted, _CAPABILITIES),
    codes.EOPNOTSUPP: (NotSupported, ""),
    ENOTSUPP: (NotSupported, ""),
    codes.ENODEV: (InterfaceMissing, "it may have been removed, or live in another network namespace"),
}


def refusal(code: int, action: str, *, hint: str = "", log: str = "") -> KernelError:
    """The error for errno `code` (positive) on trying to `action`, which reads "attach X" or "open Y"."""
    kind, usual_hint = _CLASSES.get(code, (KernelError, ""))
    return kind(f"cannot {action}: {describe(code)}", hint=hint or usual_hint, errno=code, log=log)


def describe(code: int) -> str:
    """`No such device (ENODEV)`."""
    if code == ENOTSUPP:
        return "Operation not supported (ENOTSUPP)"
    return f"{os.strerror(code)} ({codes.errorcode.get(code, code)})"


def verifier_excerpt(log: str, *, lines: int = 8) -> str:
    """The last lines of the verifier's log that say something, indented, under a count of those left out.

    The verifier explains itself last, followed only by statistics. A log without a verifier's part is taken
    whole.
    """
    found = _VERIFIER_LOG.search(log)
    text = found.group(1) if found else log
    useful = [line.rstrip() for line in text.splitlines() if line.strip() and not _STATISTICS.match(line)]
    omitted = len(useful) - lines
    head = [f"    ({omitted} earlier lines left out)"] if omitted > 0 else []
    return "\n".join(head + [f"    {line}" for line in useful[-lines:]])


def interface_label(ifindex: int) -> str:
    """`interface eth0 (2)`, or only the index where the interface is gone."""
    try:
        return f"interface {socket.if_indextoname(ifindex)} ({ifindex})"
    except (OSError, OverflowError):
        return f"interface {ifindex}"
