"""`marchproxy reset`: the appliance as it was before anybody configured it."""

import os
import signal
import time
from typing import Annotated

import typer

from marchproxy.cli import intent, unit
from marchproxy.cli.backup import write_backup
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import warn
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import TABLE, OutputOption, YesOption
from marchproxy.cli.output import Output, serialise, show_lines
from marchproxy.cli.passphrase import PassphraseOption
from marchproxy.client.control import Control
from marchproxy.model.errors import Conflict, DaemonNotRunning, MarchproxyError, NotPermitted

app = single()

_PATIENCE = 60.0
"""Seconds for a daemon to end; it waits MARCHPROXY_DRAIN_SECONDS for connections on sockets."""


@verb(
    app,
    "reset",
    "marchproxy reset",
    "marchproxy reset --stop --backup last.backup",
    "marchproxy reset --stop --yes",
)
def reset(
    context: typer.Context,
    stop: Annotated[bool, typer.Option("--stop", help="Stop a daemon that runs")] = False,
    backup: Annotated[
        str | None, typer.Option("--backup", metavar="FILE", help="Make a backup before, in this file")
    ] = None,
    passphrase_file: PassphraseOption = None,
    yes: YesOption = False,
    output: OutputOption = TABLE,
) -> None:
    """Return the appliance to the state of a fresh installation

    Removes what is configured with its history, credentials, certificates, the key of secrets, what was
    learned and resolved, and everything that is in the kernel: conversations that were carried end. What is
    installed stays, the environment of the service and backups elsewhere, too. It asks first on a terminal,
    and whether to make a backup; a script says --yes.
    """
    from marchproxy.dataplane.learning import FILE_NAME as LEARNED
    from marchproxy.dataplane.names.memory import FILE_NAME as NAMES
    from marchproxy.store.erase import erase, state_folder

    environment = environment_of(context)
    state_folder(environment.state_dir)
    if not stop:
        _refuse_beside_daemon(environment)
    if backup is None and not yes and environment.interactive:
        backup = _ask_for_backup(environment)
    if backup:
        write_backup(environment, backup, passphrase_file)
    intent.confirm(environment, "remove everything that is configured here, and end what is carried", yes)
    if stop:
        _stop(environment)
    # One may have started while this waited for an answer.
    _refuse_beside_daemon(environment)
    from marchproxy.cli.detach import take_out

    removed = [*take_out()]
    erased = erase(
        environment.state_dir, also=[name + end for name in (LEARNED, NAMES) for end in ("", ".new")]
    )
    removed += erased.removed
    if output is Output.TABLE:
        show_lines(environment, (f"removed: {item}" for item in removed))
    else:
        environment.stdout.write(serialise([{"name": item} for item in removed], output))
    for path in erased.left:
        warn(environment, f"{path} is not ours, and was left")
    environment.note("the appliance is as new" if removed else "there was nothing to remove")
    environment.note("marchproxy init --wizard begins anew")


def _ask_for_backup(environment: Environment) -> str:
    """The name of a file; empty: none is wanted, or there is nothing to back up."""
    from marchproxy.store.erase import state_folder
    from marchproxy.store.location import FILE_NAME

    if not (state_folder(environment.state_dir) / FILE_NAME).exists():
        return ""
    environment.stderr.write("File for a backup before that, empty for none: ")
    environment.stderr.flush()
    return environment.stdin.readline().strip()


def _stop(environment: Environment) -> None:
    if unit.is_managed(environment) and unit.is_active():
        environment.note(f"stopping {unit.NAME}")
        unit.call("stop")
        return
    process = _daemon(environment)
    if process is None:
        return
    environment.note(f"stopping the daemon with process {process}")
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError:
        raise NotPermitted(f"process {process} is somebody else's", hint="run this as root") from None
    deadline = time.monotonic() + _PATIENCE
    while _daemon(environment) == process:
        if time.monotonic() > deadline:
            raise MarchproxyError(
                f"the daemon with process {process} does not end", hint="nothing was removed"
            )
        time.sleep(0.05)


def _daemon(environment: Environment) -> int | None:
    """The process of the daemon; None: none answers."""
    try:
        return int(Control(environment).get("/v1/status")["pid"])
    except DaemonNotRunning:
        return None


def _refuse_beside_daemon(environment: Environment) -> None:
    process = _daemon(environment)
    if process is not None:
        raise Conflict(
            f"the daemon with process {process} works with all of this",
            hint="add --stop, or stop it first",
        )
