"""`marchproxy backup`: the store and its key in one file."""

import os
from typing import Annotated

import typer

from marchproxy.cli.context import Environment
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.cli.passphrase import PassphraseOption, read_passphrase
from marchproxy.model.errors import Conflict, MarchproxyError, NotPermitted

app = single()


@verb(
    app,
    "backup",
    "marchproxy backup /mnt/usb/box1.backup",
    "marchproxy backup box1.backup --passphrase-file /etc/backup.passphrase",
)
def backup(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What to write; it must not exist yet")],
    passphrase_file: PassphraseOption = None,
) -> None:
    """Write store, history, credentials and the key of secrets into one encrypted file

    A running daemon is not disturbed. Whoever has file and passphrase has all that the appliance knows;
    without the passphrase the file is of no use to anybody. marchproxy restore takes it back.
    """
    write_backup(environment_of(context), file, passphrase_file)


def write_backup(environment: Environment, file: str, passphrase_file: str | None) -> None:
    """Make a backup in `file`, and say so. Raises `MarchproxyError`; then there is no such file."""
    from marchproxy.store.backup import check_passphrase, make_backup

    if os.path.exists(file):
        raise Conflict(f"{file} exists already", hint="name another file, or remove it")
    passphrase = read_passphrase(environment, passphrase_file, twice=True)
    check_passphrase(passphrase)
    data = make_backup(passphrase, environment.state_dir)
    _write(file, data)
    environment.note(f"{file}: {len(data) // 1024 + 1} kB; keep the passphrase apart from it")


def _write(file: str, data: bytes) -> None:
    """Whole or not at all: a backup that was cut off is worse than none."""
    try:
        # Under its own name: sticks have no hard links, and one that a power cut made short does not open.
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as output:
                output.write(data)
                output.flush()
                os.fsync(output.fileno())
        except BaseException:
            os.unlink(file)
            raise
    except PermissionError as error:
        raise NotPermitted(f"{file} cannot be written: {error.strerror}") from error
    except FileExistsError as error:
        raise Conflict(f"{file} exists already") from error
    except OSError as error:
        raise MarchproxyError(f"{file} cannot be written: {error.strerror}") from error
