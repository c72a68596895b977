"""`marchproxy restore`: a backup in the place of the store."""

from functools import partial
from typing import Annotated

import typer

from marchproxy.cli import intent
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import InvalidFile
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.options import YesOption
from marchproxy.cli.passphrase import PassphraseOption, read_passphrase
from marchproxy.client.control import Control
from marchproxy.model.errors import Conflict, DaemonNotRunning, NotFound, NotPermitted

app = single()


@verb(
    app,
    "restore",
    "marchproxy restore /mnt/usb/box1.backup",
    "marchproxy restore box1.backup --passphrase-file /etc/backup.passphrase --yes",
)
def restore(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What marchproxy backup has written")],
    passphrase_file: PassphraseOption = None,
    yes: YesOption = False,
) -> None:
    """Put a backup in the place of the store

    The daemon has to be stopped first. The backup is looked through before anything is touched, and what was
    there is moved into a folder beside it. It may come from an older version, and from another machine:
    interfaces that this one has not are then problems in status.
    """
    from marchproxy.store.backup import open_backup
    from marchproxy.store.restore import restore as put_back

    environment = environment_of(context)
    _refuse_beside_daemon(environment)
    data = _read(file)
    contents = open_backup(data, read_passphrase(environment, passphrase_file, twice=False))
    intent.confirm(environment, "replace everything that is configured here", yes)
    # One may have started while this waited for an answer.
    beside = partial(_refuse_beside_daemon, environment)
    head, replaced = put_back(contents, environment.state_dir, before=beside)
    environment.note(f"revision {head.number} of {head.time:%Y-%m-%d %H:%M} UTC is restored")
    if replaced is not None:
        environment.note(f"what was there is in {replaced}")


def _read(file: str) -> bytes:
    try:
        with open(file, "rb") as backup:
            return backup.read()
    except FileNotFoundError:
        raise NotFound("file", file) from None
    except PermissionError:
        raise NotPermitted(f"{file} may not be read", hint="run this as a user who may") from None
    except OSError as error:
        raise InvalidFile(f"{file}: {error.strerror}") from None


def _refuse_beside_daemon(environment: Environment) -> None:
    try:
        status = Control(environment).get("/v1/status")
    except DaemonNotRunning:
        return
    raise Conflict(
        f"the daemon with process {status['pid']} works with the store",
        hint=f"stop it first: systemctl stop marchproxy, or kill {status['pid']}",
    )
