"""What this machine's kernel can do, asked of the kernel itself.

Run as a program (`python tests/features.py`) it moves into a network namespace of its own, tries each feature
there and prints the answers as JSON; what it made ends with it. Tests get the answers from `probe()` and
say what they need with ``@pytest.mark.requires("root", "tcx")``.

An answer is one of three: yes (None), no ("kernel lacks ..."), or could not tell ("cannot try ..."). Only the
second excuses a skipped test in CI. The probes use nothing of marchproxy: they judge the machine, not our
code.
"""

import ctypes
import errno
import functools
import json
import os
import platform
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

type Answer = str | None

LACKS: Final = "kernel lacks "
CANNOT_TRY: Final = "cannot try "
"""How the reason of a skip begins: excused, and not."""

_ABSENT: Final = {"EAFNOSUPPORT", "EINVAL", "ENODEV", "ENOENT", "ENOSYS", "EOPNOTSUPP"}
"""What kernels say about features that they were built without; any other error tells nothing."""

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_BPF: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280}.get(platform.machine(), 280)
_MAP_CREATE, _PROG_LOAD, _LINK_CREATE = 0, 5, 28
_SCHED_CLS, _XDP, _SK_LOOKUP = 3, 6, 30
_TYPE_XDP, _TYPE_SK_LOOKUP, _TYPE_TCX_INGRESS = 37, 36, 46
_XDP_GENERIC, _XDP_NATIVE = 2, 4
_MAP_RINGBUF = 27
_RETURN_ONE: Final = struct.pack("<Q", 0x00000001_000000B7) + struct.pack("<Q", 0x95)
"""`r0 = 1; exit`: a program that every type accepts (TC: shot, XDP: drop, sk_lookup: pass)."""
_LOOPBACK, _CLONE_NEWNS, _CLONE_NEWNET, _MS_PRIVATE_REC = 1, 0x00020000, 0x40000000, 0x44000


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _bpf(command: int, attributes: bytes) -> int:
    """One bpf(2) call; the result is a new file descriptor. Raises OSError."""
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    return _checked(_LIBC.syscall(_BPF, command, buffer, 128))


def _load(program_type: int, expected_attach_type: int = 0) -> int:
    instructions = ctypes.create_string_buffer(_RETURN_ONE, len(_RETURN_ONE))
    licence = ctypes.create_string_buffer(b"GPL")
    head = struct.pack("=IIQQ", program_type, 2, ctypes.addressof(instructions), ctypes.addressof(licence))
    return _bpf(_PROG_LOAD, head.ljust(68, b"\0") + struct.pack("=I", expected_attach_type))


def _attach(program_type: int, target: int, attach_type: int, flags: int = 0) -> None:
    expected = attach_type if attach_type != _TYPE_TCX_INGRESS else 0
    _bpf(_LINK_CREATE, struct.pack("=IIII", _load(program_type, expected), target, attach_type, flags))


def _ip(*words: str) -> None:
    """An iproute2 command. Raises OSError with what it said."""
    try:
        result = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise OSError(errno.EIO, "iproute2 is not installed") from error
    if result.returncode != 0:
        said = result.stderr.strip() or f"{words[0]} failed"
        raise OSError(errno.EPERM if "not permitted" in said else errno.EOPNOTSUPP, said.splitlines()[-1])


def _veth() -> None:
    _ip("ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1")


def _xdp_native() -> None:
    _attach(_XDP, socket.if_nametoindex("probe0"), _TYPE_XDP, _XDP_NATIVE)


def _bpffs() -> None:
    _checked(_LIBC.unshare(_CLONE_NEWNS))
    _checked(_LIBC.mount(b"none", b"/", None, _MS_PRIVATE_REC, None))
    _checked(_LIBC.mount(b"bpf", b"/sys/fs/bpf", b"bpf", 0, None))


def _btf() -> None:
    os.stat("/sys/kernel/btf/vmlinux")


def _ipv6() -> None:
    socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()


def _sk_lookup() -> None:
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    _attach(_SK_LOOKUP, namespace, _TYPE_SK_LOOKUP)


# In this order: the first ones make what the later ones use.
_PROBES: Final[dict[str, Callable[[], object]]] = {
    "ipv6": _ipv6,
    "btf": _btf,
    "bpf": lambda: _load(_SCHED_CLS),
    "ringbuf": lambda: _bpf(_MAP_CREATE, struct.pack("=IIII", _MAP_RINGBUF, 0, 0, 4096)),
    "netns": lambda: _checked(_LIBC.unshare(_CLONE_NEWNET)),
    "tcx": lambda: _attach(_SCHED_CLS, _LOOPBACK, _TYPE_TCX_INGRESS),
    "clsact": lambda: _ip("tc", "qdisc", "add", "dev", "lo", "clsact"),
    "xdp": lambda: _attach(_XDP, _LOOPBACK, _TYPE_XDP, _XDP_GENERIC),
    "sk_lookup": _sk_lookup,
    "veth": _veth,
    "xdp-native": _xdp_native,
    "bpffs": _bpffs,
}
FEATURES: Final = ("root", *_PROBES)


def _try(feature: str) -> Answer:
    try:
        _PROBES[feature]()
    except OSError as error:
        absent = errno.errorcode.get(error.errno or 0) in _ABSENT
        return f"{LACKS if absent else CANNOT_TRY}{feature} ({error.strerror})"
    return None


def _answers() -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for feature in _PROBES:
        # Never in the caller's own namespace: without one to spend, what would be attached stays untried.
        if answers.get("netns") is None:
            answers[feature] = _try(feature)
        else:
            answers[feature] = f"{CANNOT_TRY}{feature} (no network namespace for it)"
    return answers


@functools.cache
def probe() -> dict[str, Answer]:
    """Every feature and why it is missing (None: it is there), found out once, by a process of its own."""
    program = [sys.executable, "-I", str(Path(__file__).resolve())]
    result = subprocess.run(program, capture_output=True, text=True, check=True, timeout=30)
    found: dict[str, Answer] = json.loads(result.stdout)
    return {"root": None if os.geteuid() == 0 else "not root: run this again as root", **found}


def excused(reason: str) -> bool:
    """Whether a skip's reason names a feature that this kernel, asked again, really lacks."""
    if not reason.startswith(LACKS):
        return False
    answer = probe().get(reason.removeprefix(LACKS).split(" ", 1)[0])
    return answer is not None and answer.startswith(LACKS)


if __name__ == "__main__":
    print(json.dumps(_answers()))
