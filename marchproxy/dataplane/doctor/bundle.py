"""An archive for somebody else to look at: what was found, what is configured, what the machine says.

Secrets are not in what the appliance shows anyway. Logs and other programs' output are searched for what
looks like one all the same.
"""

import gzip
import io
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from marchproxy.dataplane.doctor.case import Case, read
from marchproxy.dataplane.redaction import redact
from marchproxy.model.errors import Conflict, MarchproxyError, NotPermitted

PATIENCE = 10.0
"""Seconds for one command."""
LARGEST = 4_000_000
"""Characters of one text; of a longer one the end is kept, which is what happened last."""

COMMANDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "addresses.txt": ("ip", "-details", "-statistics", "address"),
        "routes-ipv4.txt": ("ip", "-4", "route", "show", "table", "all"),
        "routes-ipv6.txt": ("ip", "-6", "route", "show", "table", "all"),
        "rules.txt": ("ip", "rule"),
        "neighbours.txt": ("ip", "neighbour"),
        "nftables.txt": ("nft", "list", "ruleset"),
        "programs.txt": ("bpftool", "prog"),
        "links.txt": ("bpftool", "net"),
        "sockets.txt": ("ss", "--listening", "--numeric", "--tcp", "--udp"),
        "log.txt": (
            *("journalctl", "--unit", "marchproxy", "--lines", "5000"),
            *("--no-pager", "--output", "short-iso"),
        ),
        "kernel.txt": ("uname", "-a"),
    }
)
"""What is asked where it is installed; each by the name of its file."""
_FILES = ("mounts", "meminfo", "cpuinfo", "net/softnet_stat", "net/snmp", "net/sockstat")


def write_bundle(path: Path, documents: Mapping[str, str], case: Case) -> list[str]:
    """Write the archive, for its owner alone, and return the names of what is in it.

    `documents` go in beside what is collected here. Raises `Conflict` where the file exists, `NotPermitted`
    or `MarchproxyError` where it cannot be written; then nothing is left of it.
    """
    folder = f"marchproxy-support-{os.uname().nodename}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    texts = {**documents, **dict(_collected(case))}
    raw = io.BytesIO()
    with gzip.GzipFile(fileobj=raw, mode="wb") as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in texts.items():
            data = redact(text[-LARGEST:]).encode(errors="replace")
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
            archive.addfile(entry, io.BytesIO(data))
    _keep(path, raw.getvalue())
    return sorted(texts)


def _keep(path: Path, data: bytes) -> None:
    try:
        file = _open(path)
    except FileExistsError:
        raise Conflict(f"{path} exists already", hint="name another file") from None
    except PermissionError:
        raise NotPermitted(f"{path} may not be written", hint="name a file in a folder of yours") from None
    except OSError as error:
        raise MarchproxyError(f"{path}: {error.strerror}") from None
    try:
        with file:
            file.write(data)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise MarchproxyError(f"{path}: {error.strerror}") from None


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb")


def _collected(case: Case) -> Iterator[tuple[str, str]]:
    for name, command in COMMANDS.items():
        yield name, _said(command)
    process = str(case.status["pid"]) if case.status else "self"
    for name in (*_FILES, f"{process}/limits", f"{process}/status"):
        yield f"proc/{name.replace('/', '-')}.txt", read(case.proc / name)
    yield "os-release.txt", read(Path("/etc/os-release"))
    yield "resolv.conf.txt", read(Path("/etc/resolv.conf"))


def _said(command: tuple[str, ...]) -> str:
    """What a command printed, errors included; why nothing, where it printed nothing."""
    program = shutil.which(command[0])
    if program is None:
        return f"{command[0]} is not installed\n"
    try:
        ran = subprocess.run([program, *command[1:]], capture_output=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{' '.join(command)}: {error}\n"
    return (ran.stdout + ran.stderr).decode(errors="replace")
