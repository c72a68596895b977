"""The service that systemd runs: started, restarted, given a variable. Elsewhere there is none."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from tempfile import NamedTemporaryFile

from marchproxy.cli.context import Environment
from marchproxy.model.errors import MarchproxyError, NotPermitted

NAME = "marchproxy.service"
VARIABLES = Path("/etc/marchproxy/marchproxy.env")
"""What the unit reads as EnvironmentFile=."""
_BOOTED = Path("/run/systemd/system")
"""There where systemd is the service manager (sd_booted(3))."""
_ELSEWHERE = ("MARCHPROXY_STATE_DIR", "MARCHPROXY_RUNTIME_DIR", "MARCHPROXY_BPFFS", "DATABASE_URL", "DB_TYPE")
_PATIENCE = 120
"""Seconds; systemd's own limit for a start is below it."""


def is_booted() -> bool:
    """Whether systemd is the service manager."""
    return _BOOTED.is_dir()


def is_managed(environment: Environment) -> bool:
    """Whether systemd runs this very appliance, and we may tell it to: not one in folders of its own."""
    ours = not any(environment.variables.get(name) for name in _ELSEWHERE)
    if not (ours and is_booted() and os.geteuid() == 0 and shutil.which("systemctl")):
        return False
    return _systemctl("show", "--property=LoadState", "--value", NAME).stdout.strip() == "loaded"


def is_active() -> bool:
    """Whether it runs, or is about to."""
    return _systemctl("is-active", NAME).stdout.strip() in {"active", "activating", "reloading"}


def call(verb: str) -> None:
    """`start`, `restart` or `stop` it, and wait until that is done. Raises `MarchproxyError`."""
    done = _systemctl(verb, NAME)
    if done.returncode:
        raise MarchproxyError(
            f"systemctl {verb} {NAME} failed: {done.stderr.strip()}", hint=f"journalctl --unit {NAME}"
        )


def read_variable(name: str, file: Path = VARIABLES) -> str | None:
    """What the service's environment says; None where it says nothing."""
    try:
        found = _line(name).findall(file.read_text())
    except (OSError, UnicodeDecodeError):
        return None
    said = [value for hidden, value in found if not hidden]
    return said[-1].strip().strip("\"'") if said else None


def write_variable(name: str, value: str, file: Path = VARIABLES) -> None:
    """Say it in the service's environment, in the place of the line that says or suggests it.

    Raises `MarchproxyError`.
    """
    try:
        changed = _with(file.read_text() if file.exists() else "", name, value)
        file.parent.mkdir(mode=0o755, exist_ok=True)
        with NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.", delete=False) as draft:
            draft.write(changed)
            os.fchmod(draft.fileno(), file.stat().st_mode & 0o777 if file.exists() else 0o644)
        Path(draft.name).replace(file)
    except PermissionError as error:
        raise NotPermitted(f"{file} cannot be written: {error.strerror}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise MarchproxyError(f"{file} cannot be changed: {error}") from error


def _with(text: str, name: str, value: str) -> str:
    """In the place of what is in force (the last one), else of a suggestion, else at the end."""
    found = list(_line(name).finditer(text))
    said = [each for each in found if not each[1]]
    place = said[-1] if said else next(iter(found), None)
    if place is not None:
        return f"{text[: place.start()]}{name}={value}{text[place.end() :]}"
    gap = "" if text.endswith("\n") or not text else "\n"
    return f"{text}{gap}{name}={value}\n"


def _line(name: str) -> re.Pattern[str]:
    """A line with the variable, also one that is commented out."""
    return re.compile(rf"^(#?){re.escape(name)}=(.*)$", re.MULTILINE)


def _systemctl(*words: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            ["systemctl", *words], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise MarchproxyError(f"systemctl {words[0]} cannot be carried out: {error}") from error
