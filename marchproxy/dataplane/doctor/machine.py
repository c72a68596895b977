"""The kernel, and what it gives to processes."""

import ctypes
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from marchproxy.dataplane.doctor.case import Case, read
from marchproxy.dataplane.doctor.finding import Finding, error, fine, warning
from marchproxy.dataplane.kernel import features
from marchproxy.dataplane.kernel.features import Answer
from marchproxy.model.entities import Mode

FILES = 16_384
"""Open files of one process, below which few thousands of tunnels fit (each has two)."""
MEGABYTES = 200
"""Of a disk: the store, its journal and a block list of a million entries need some fifty."""
_MORE_FILES = (
    r"printf '[Service]\nLimitNOFILE=65536\n' |"
    " install -D -m 644 /dev/stdin /etc/systemd/system/marchproxy.service.d/files.conf"
    " && systemctl daemon-reload && systemctl restart marchproxy"
)
_TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronised."""
_OPTIONAL = frozenset({"XDP", "tcx"})
"""What programs can do without, of what a kernel may lack."""
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Debian's names for them."""
_RELEASED = datetime(2026, 1, 1, tzinfo=UTC)


def kernel(case: Case) -> Iterator[Finding]:
    """What programs of ours need."""
    usable, *others = features.probe_all()
    if not usable:
        if case.status is not None and case.uses_bpf:
            yield fine("this user may not ask; the daemon uses BPF", str(usable))
            return
        fix = "apt-get install libbpf1" if "libbpf" in usable.detail else "sudo marchproxy doctor"
        yield warning("no BPF for this user: traffic is carried on sockets, slower", str(usable), fix)
        return
    lacking = [answer for answer in others if not answer and answer.feature not in _OPTIONAL]
    if lacking or not case.uses_bpf:
        yield _on_sockets(case, lacking)
        return
    wants_xdp = any(interface.mode in (Mode.XDP, Mode.XDP_GENERIC) for interface in case.interfaces)
    for answer in others:
        if answer:
            continue
        if answer.feature == "tcx":
            yield fine("no tcx: programs are attached by clsact", str(answer))
        elif wants_xdp:
            yield error(f"this kernel has no {answer.feature}", str(answer), _newer_kernel())
    if all(others):
        yield fine("it has all that programs need", ", ".join(answer.feature for answer in (usable, *others)))


def _on_sockets(case: Case, lacking: Sequence[Answer]) -> Finding:
    said = case.status["tier"]["reason"] if case.status else ""
    if lacking:
        text = "the programs need a newer kernel: traffic is carried on sockets, and none that is only routed"
        evidence = f"kernel {os.uname().release}: {', '.join(map(str, lacking))}"
        return warning(text, f"{evidence}; kernel {features.OLDEST} would do", _newer_kernel())
    text = "traffic is carried on sockets, and none that is only routed"
    return warning(text, f"the daemon says: {said}", "journalctl -u marchproxy")


def capabilities(case: Case) -> Iterator[Finding]:
    """What the daemon may do, not who asks: it is another user's process."""
    if case.status is None:
        return
    owner = f"/proc/{case.status['pid']}/status"
    missing = features.missing_capabilities(read(case.proc / f"{case.status['pid']}/status"))
    if missing is None:
        text = "what the daemon may do cannot be seen"
        yield warning(text, f"{owner} has no CapEff", "sudo marchproxy doctor")
    elif missing:
        becomes = "new programs cannot be loaded" if case.uses_bpf else "traffic is carried on sockets"
        text = f"the daemon may not use BPF as it needs to: {becomes}"
        yield warning(text, f"{owner}: {', '.join(missing)} missing", "systemctl revert marchproxy")
    else:
        yield fine("the daemon has the capabilities that programs need", owner)


def _newer_kernel() -> str:
    machine = os.uname().machine
    return f"apt-get install linux-image-{_MACHINES.get(machine, machine)}"


def btf(case: Case) -> Iterator[Finding]:
    """Handing tunnels over reads the kernel's own structures."""
    path = case.sys / "kernel/btf/vmlinux"
    if path.exists():
        yield fine("the kernel describes its types", str(path))
    else:
        text = "the kernel does not describe its types: tunnels stay in user space"
        yield warning(text, f"no {path}: it was built without CONFIG_DEBUG_INFO_BTF", _newer_kernel())


def bpffs(case: Case) -> Iterator[Finding]:
    """Where programs and flows stay while no daemon runs."""
    if not case.uses_bpf:
        return
    mounts = [Path(words[1]) for words in case.lines("self/mounts") if len(words) > 2 and words[2] == "bpf"]
    if any(case.bpffs.is_relative_to(mount) for mount in mounts):
        yield fine(f"{case.bpffs} is in a BPF file system", f"mounted at {', '.join(map(str, mounts))}")
    else:
        where = ", ".join(map(str, mounts)) or "none is mounted"
        yield error(f"{case.bpffs} is in no BPF file system", where, "mount -t bpf bpf /sys/fs/bpf")


def jit(case: Case) -> Iterator[Finding]:
    """Programs are compiled, or interpreted at a tenth of the speed."""
    value = case.sysctl("net/core/bpf_jit_enable")
    if value == "0":
        fix = "sysctl -w net.core.bpf_jit_enable=1"
        yield warning("the kernel interprets BPF programs", "net.core.bpf_jit_enable is 0", fix)
    elif value:
        yield fine("the kernel compiles BPF programs", f"net.core.bpf_jit_enable is {value}")


def files(case: Case) -> Iterator[Finding]:
    """How many files the daemon may open."""
    owner = str(case.status["pid"]) if case.status else "self"
    soft = next(
        (words[3] for words in case.lines(f"{owner}/limits") if words[:3] == ["Max", "open", "files"]), ""
    )
    if not soft.isdigit():
        return
    evidence = f"/proc/{owner}/limits"
    if int(soft) >= FILES:
        yield fine(f"{soft} files may be open", evidence)
    else:
        text = f"only {soft} files may be open: each tunnel in user space takes two"
        yield warning(text, evidence, _MORE_FILES)


def clock(case: Case) -> Iterator[Finding]:
    """Tokens and mappings expire by it."""
    now = datetime.now(UTC)
    evidence = f"it says {now:%Y-%m-%d %H:%M} UTC"
    if now < _RELEASED:
        yield error("the clock is wrong", evidence, "timedatectl set-ntp true")
    elif _clock_state() == _TIME_ERROR:
        text = "nobody keeps the clock right: what expires does so when it says"
        yield warning(text, f"{evidence}; adjtimex says unsynchronised", "timedatectl set-ntp true")
    else:
        yield fine("the clock is kept right", evidence)


def disk(case: Case) -> Iterator[Finding]:
    """Whether the store can grow."""
    folders = [case.runtime, *([case.store_file.parent] if case.store_file else [])]
    for folder in dict.fromkeys(each for each in folders if each.is_dir()):
        space = os.statvfs(folder)
        free, size = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
        evidence = f"{folder}: {free / 1e6:,.0f} of {size / 1e6:,.0f} MB are free"
        if space.f_files and not space.f_favail:
            yield error("the disk has no inode left", evidence, f"df --inodes {folder}")
        elif free < 10e6:
            yield error("the disk is full", evidence, f"du --one-file-system --summarize {folder}/*")
        elif free < MEGABYTES * 1e6:
            yield warning("the disk is nearly full", evidence, f"df {folder}")
        else:
            yield fine("there is room", evidence)


def _clock_state() -> int:
    """What adjtimex(2) returns when it is asked and told nothing; -1 where it may not be."""
    # struct timex has 208 bytes on 64-bit machines; all zeros changes nothing.
    return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(256)))
