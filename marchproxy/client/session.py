"""Where the operator came from: the SSH session that a command is part of, also behind sudo and su."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from marchproxy.client.appliance import Appliance
from marchproxy.model.address import IPAddress, parse_ip
from marchproxy.model.errors import InvalidValue
from marchproxy.model.ports import parse_port

VARIABLE = "SSH_CONNECTION"
"""Client address and port, server address and port (ssh(1), ENVIRONMENT)."""
_PROC = Path("/proc")
_MOST_ANCESTORS = 64


@dataclass(frozen=True, slots=True)
class Session:
    """An SSH session."""

    client: IPAddress
    port: int | None
    """The port of this machine that it came to; None: it does not say."""


def ssh_session(appliance: Appliance, proc: Path = _PROC) -> Session | None:
    """The session; None on a console, or where nothing is known of one.

    sudo and su take the variable away, so the processes that started this one are asked, too, as far as this
    user may read what they were started with.
    """
    said = appliance.variables.get(VARIABLE)
    for text in [said] if said is not None else _inherited(proc):
        words = text.split()
        try:
            return Session(parse_ip(words[0]), parse_port(words[3]) if len(words) > 3 else None)
        except (IndexError, InvalidValue):
            appliance.detail(f"{VARIABLE} names no address: {text}")
    return None


def _inherited(proc: Path) -> Iterator[str]:
    """What ancestors have in the variable, the nearest first."""
    process = os.getppid()
    for _ in range(_MOST_ANCESTORS):
        if process <= 1:
            return
        try:
            variables = (proc / str(process) / "environ").read_bytes().split(b"\0")
            # The name of the program, in brackets, may hold anything (proc_pid_stat(5)).
            process = int((proc / str(process) / "stat").read_bytes().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return
        prefix = f"{VARIABLE}=".encode()
        yield from (
            each[len(prefix) :].decode(errors="replace") for each in variables if each.startswith(prefix)
        )
