"""`marchproxy autostart`: what the Debian package brings for systemd, for a program that came without one."""

import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

import marchproxy
from marchproxy.cli import unit
from marchproxy.cli.context import Environment
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.model.errors import Conflict, MarchproxyError, NotPermitted

app = single()

USER = "marchproxy"
STATE = Path("/var/lib/marchproxy")
ETC = Path("/etc")
PACKAGED = (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))
"""Where the Debian package puts the unit; what is in /etc would hide it."""
_SYSUSERS, _TMPFILES = "sysusers.d/marchproxy.conf", "tmpfiles.d/marchproxy.conf"
_UNIT, _TERMINAL = f"systemd/system/{unit.NAME}", "systemd/system/marchproxy-tui@.service"
_TEMPLATES = {
    _SYSUSERS: "marchproxy.sysusers",
    _TMPFILES: "marchproxy.tmpfiles",
    _UNIT: "marchproxy.service",
    _TERMINAL: "marchproxy-tui@.service",
}
"""Below /etc, and what it is made of."""
_FITS = re.compile(r"/[\w./+-]+", re.ASCII)
"""A path that means the same in a unit, in a command line and in a file name (systemd.syntax(7))."""
_HIDDEN = ("/root/", "/home/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108  (we write to none of them)
"""What the service does not see, or sees another of (ProtectHome=, PrivateTmp=)."""
_CACHE = "CacheDirectory=marchproxy-service\nEnvironment=MARCHPROXY_CACHE=/var/cache/marchproxy-service\n"
"""Where a single file unpacks for the service: what root runs must not belong to the service."""


@verb(
    app, "autostart", "marchproxy autostart", "marchproxy autostart --print", "marchproxy autostart --remove"
)
def autostart(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--print", help="Print the files, and write none")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Stop and remove the service again")] = False,
) -> None:
    """Run this program at boot, as a service of systemd

    For the single file and the wheel; the Debian package has done it. Writes the unit, which runs as a user
    of its own with five capabilities, below /etc, and enables it: `init --wizard` then starts it. Its
    environment is /etc/marchproxy/marchproxy.env. With --remove what is configured stays, and what is in the
    kernel too, until `detach`.
    """
    environment = environment_of(context)
    if remove:
        _remove(environment)
        return
    file = environment.variables.get("MARCHPROXY_FILE")
    program = Path(os.path.abspath(file or Path(sys.executable).with_name("marchproxy")))
    _look_at(program)
    files = texts(program, single_file=bool(file))
    if show:
        for name, text in files.items():
            environment.stdout.write(f"# {ETC / name}\n{text}\n")
        return
    _install(environment, files)


def texts(program: Path, *, single_file: bool) -> Mapping[str, str]:
    """What is written below /etc. Raises `MarchproxyError` for a program that the service could not run."""
    if not _FITS.fullmatch(str(program)):
        raise MarchproxyError(
            f"{program} cannot stand in a unit", hint="put the program to /usr/local/bin/marchproxy"
        )
    if str(program).startswith(_HIDDEN):
        raise MarchproxyError(
            f"{program} is out of the service's sight", hint="put the program to /usr/local/bin/marchproxy"
        )
    made = {name: (_templates() / source).read_text() for name, source in _TEMPLATES.items()}
    for name in (_UNIT, _TERMINAL):
        text = made[name].replace("/usr/bin/marchproxy", str(program))
        text = text.replace(f"/usr/lib/{_TMPFILES}", str(ETC / _TMPFILES))
        made[name] = text.replace("[Service]\n", f"[Service]\n{_CACHE}", 1) if single_file else text
    return made


def _templates() -> Path:
    """The files of the Debian package: in the wheel beside the modules, in a checkout beside their folder."""
    packaged = Path(marchproxy.__file__).parent / "systemd"
    return packaged if packaged.is_dir() else packaged.parent.parent / "systemd"


def _look_at(program: Path) -> None:
    """Raises `MarchproxyError` where the service should not start it. A link stays one: an administrator may
    have it stay when versions change.
    """
    try:
        mode = program.stat().st_mode
    except OSError as error:
        raise MarchproxyError(f"{program}: {error.strerror}", hint="call the program by its path") from error
    if not (stat.S_ISREG(mode) and os.access(program, os.X_OK)):
        raise MarchproxyError(f"{program} is no program", hint=f"chmod 755 {program}")
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise MarchproxyError(f"others could write to {program}", hint=f"chmod 755 {program}")


def _install(environment: Environment, files: Mapping[str, str]) -> None:
    if not unit.is_booted():
        raise MarchproxyError(
            "systemd is not the service manager here", hint="marchproxy run serves without it"
        )
    if any((folder / unit.NAME).exists() for folder in PACKAGED):
        raise Conflict("the package has brought the service", hint="systemctl enable marchproxy")
    # An init before this left what is root's. What is the service's already may have links of its making.
    roots = STATE.is_dir() and STATE.stat().st_uid == os.getuid()
    try:
        for name, text in files.items():
            (ETC / name).parent.mkdir(parents=True, exist_ok=True)
            (ETC / name).write_text(text)
            environment.note(f"wrote {ETC / name}")
        _settings()
        _call("systemd-sysusers", str(ETC / _SYSUSERS))
        _call("systemd-tmpfiles", "--create", str(ETC / _TMPFILES))
        if roots:
            _give_away()
    except PermissionError as error:
        raise NotPermitted(
            f"{error.filename} cannot be written", hint="run: sudo marchproxy autostart"
        ) from error
    except OSError as error:
        raise MarchproxyError(f"{error.filename} cannot be written: {error.strerror}") from error
    _call("systemctl", "daemon-reload")
    _call("systemctl", "enable", "--quiet", unit.NAME)
    configured = any(STATE.glob("*.db"))
    environment.note(
        "it starts at boot; now: "
        + (f"systemctl restart {unit.NAME}" if configured else "marchproxy init --wizard")
    )


def _give_away() -> None:
    """All of the state to the service; of a link, the link."""
    owner = pwd.getpwnam(USER)
    for path in (STATE, *STATE.rglob("*")):
        os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)


def _settings() -> None:
    """The environment of the service, for whoever changes it; what is there stays."""
    folder = ETC / "marchproxy"
    folder.mkdir(mode=0o755, exist_ok=True)
    if not (folder / "marchproxy.env").exists():
        shutil.copyfile(_templates() / "marchproxy.env", folder / "marchproxy.env")


def _remove(environment: Environment) -> None:
    there = [ETC / name for name in _TEMPLATES if (ETC / name).exists()]
    if not there:
        environment.note("there is nothing of autostart's")
        return
    try:
        if (ETC / _UNIT).exists() and unit.is_booted():
            _call("systemctl", "disable", "--quiet", "--now", unit.NAME)
        for path in there:
            path.unlink()
            environment.note(f"removed {path}")
    except PermissionError as error:
        raise NotPermitted(
            f"{error.filename} cannot be removed", hint="run: sudo marchproxy autostart --remove"
        ) from error
    except OSError as error:
        raise MarchproxyError(f"{error.filename} cannot be removed: {error.strerror}") from error
    if unit.is_booted():
        _call("systemctl", "daemon-reload")


def _call(*command: str) -> None:
    """Raises `MarchproxyError` with what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise MarchproxyError(f"{command[0]} cannot be carried out: {error}") from error
    if done.returncode:
        raise MarchproxyError(f"{' '.join(command)} failed: {done.stderr.strip()}")
